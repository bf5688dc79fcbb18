// Runs official JavaScript clients, for tests/support/js_clients.py. Both sides exchange lines of JSON: commands on
// standard input, answers and reports on standard output.
//
// A command is {id, op, name, ...}; its answer is {id, value} or {id, error}. Each client reports what happens to it:
// {name, nsp, what: "connect" | "disconnect" | "connect_error" | "event", at (ms since 1970), ...}.
const { Manager } = require("socket.io-client");
const msgpackParser = require("socket.io-msgpack-parser");

const PATIENCE = 40000; // ms
const NOWHERE = "http://127.0.0.1:1"; // nobody listens there
const clients = new Map();
const say = (line) => process.stdout.write(JSON.stringify(line) + "\n");
const length = (value) => (typeof value === "string" ? value.length : Buffer.isBuffer(value) || value instanceof ArrayBuffer ? value.byteLength : 0);
const shorten = (value) => (length(value) > 100 ? { length: length(value) } : value);
const plain = (value) =>
  Buffer.isBuffer(value) || value instanceof ArrayBuffer || ArrayBuffer.isView(value)
    ? { bytes: Buffer.from(value.buffer && !Buffer.isBuffer(value) ? value.buffer : value).toString("hex") }
    : typeof value === "function"
      ? { callback: true }
      : value;

const operations = {
  // brief: reports only the length of long strings and buffers. urls: each attempt to reconnect goes to the next of these.
  // answer: the acknowledgement of each event; "held" to give it later, false to give none.
  open({ name, url, urls, namespaces = ["/"], auth, options = {}, socketOptions = {}, answer, brief }) {
    const manager = new Manager(url, {
      reconnectionDelay: 20,
      reconnectionDelayMax: 100,
      randomizationFactor: 0.5,
      forceNew: true,
      ...options,
      ...(options.parser === "msgpack" ? { parser: msgpackParser } : {}),
    });
    if (urls) {
      let turn = Math.max(urls.indexOf(url), 0);
      manager.on("reconnect_attempt", () => (manager.uri = clients.get(name).away ? NOWHERE : urls[++turn % urls.length]));
    }
    const sockets = {};
    const held = []; // acknowledgements that operation "answer" gives later
    for (const nsp of namespaces) {
      const report = (what, more) => say({ name, nsp, what, at: Date.now(), ...more });
      const socket = (sockets[nsp] = manager.socket(nsp, { ...(auth ? { auth } : {}), ...socketOptions }));
      socket.on("connect", () => report("connect", { sid: socket.id, recovered: Boolean(socket.recovered), pid: socket._pid }));
      socket.on("disconnect", (reason, details) => report("disconnect", { reason, code: details?.context?.code }));
      socket.on("connect_error", (error) => report("connect_error", { message: error.message, data: error.data }));
      socket.onAny((event, ...args) => {
        const ack = args.length && typeof args[args.length - 1] === "function" ? args[args.length - 1] : null;
        report("event", { event, args: args.map(brief ? shorten : plain) });
        if (ack && answer === "held") held.push(ack);
        else if (ack && answer !== false) ack(...(answer || [`${name} got ${event}`]));
      });
    }
    clients.set(name, { manager, sockets, url, held });
  },
  // Breaks the transport without closing it in order, as when a network fails.
  cut({ name }) {
    const engine = clients.get(name).manager.engine;
    if (engine.transport.ws) engine.transport.ws.terminate();
    else engine.close(); // polling, or a WebSocket that has just closed
  },
  // Breaks the transport; the client reaches no node until "back".
  away({ name }) {
    clients.get(name).away = true;
    operations.cut({ name });
  },
  back({ name }) {
    clients.get(name).away = false;
  },
  // Closes the transport as the documentation of Socket.IO does to try out recovery.
  close_engine({ name }) {
    clients.get(name).manager.engine.close();
  },
  // The client reconnects with a new transport, while the server still takes the old one for open.
  half_open({ name }) {
    const client = clients.get(name);
    const engine = client.manager.engine;
    engine.transport.removeAllListeners();
    engine.transport.onPacket = engine.transport.onData = () => {};
    engine.transport.send = engine.transport.close = () => {};
    if (engine.transport.ws) {
      engine.transport.ws.onclose = engine.transport.ws.onmessage = engine.transport.ws.onerror = () => {};
      client.kept = engine.transport.ws;
    }
    engine._onClose("transport close");
  },
  // The client stops reading from its socket (WebSocket only), until "resume".
  pause({ name }) {
    const { ws } = clients.get(name).manager.engine.transport;
    if (ws && ws.readyState === ws.OPEN) ws.pause();
    return Boolean(ws && ws.isPaused);
  },
  resume({ name }) {
    const { ws } = clients.get(name).manager.engine.transport;
    if (ws && ws.isPaused) ws.resume();
  },
  // Reconnects go to this URL from now on; the present connection stays open.
  move({ name, url }) {
    clients.get(name).manager.uri = url;
  },
  disconnect({ name, nsp = "/" }) {
    clients.get(name).sockets[nsp].disconnect();
  },
  connect({ name, nsp = "/" }) {
    clients.get(name).sockets[nsp].connect();
  },
  // Changes what the client will send to recover its session.
  set({ name, nsp = "/", pid, offset }) {
    const socket = clients.get(name).sockets[nsp];
    if (pid !== undefined) socket._pid = pid;
    if (offset !== undefined) socket._lastOffset = offset;
  },
  get({ name, nsp = "/" }) {
    const client = clients.get(name);
    const socket = client.sockets[nsp];
    return {
      id: socket.id,
      connected: socket.connected,
      recovered: Boolean(socket.recovered),
      pid: socket._pid,
      offset: socket._lastOffset,
      transport: client.manager.engine.transport && client.manager.engine.transport.name,
    };
  },
  // Emits an event, and answers with its acknowledgement.
  async call({ name, nsp = "/", event, args = [] }) {
    const decoded = args.map((a) => (a && a.bytes !== undefined ? Buffer.from(a.bytes, "hex") : a));
    const reply = await clients.get(name).sockets[nsp].timeout(PATIENCE).emitWithAck(event, ...decoded);
    return plain(reply);
  },
  // Gives the acknowledgements that were held.
  answer({ name, args = [] }) {
    for (const ack of clients.get(name).held.splice(0)) ack(...args);
  },
  emit({ name, nsp = "/", event, args = [] }) {
    clients.get(name).sockets[nsp].emit(event, ...args);
  },
  // Ends the client for good.
  shut({ name }) {
    const client = clients.get(name);
    client.manager.reconnection(false);
    for (const socket of Object.values(client.sockets)) socket.disconnect();
    client.manager.engine && client.manager.engine.close();
    if (client.kept) client.kept.terminate();
    clients.delete(name);
  },
};

require("readline")
  .createInterface({ input: process.stdin })
  .on("line", async (line) => {
    const command = JSON.parse(line);
    try {
      say({ id: command.id, value: (await operations[command.op](command)) ?? null });
    } catch (error) {
      say({ id: command.id, error: String(error.stack || error) });
    }
  })
  .on("close", () => process.exit(0));
