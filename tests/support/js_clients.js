// Official JavaScript clients, driven by lines of JSON: commands on standard input, reports on standard output.
//
// A command is {id, op, name, ...}; its answer {id, value} or {id, error}. What a client sees is reported as it
// comes: {name, nsp, what: "connect" | "disconnect" | "connect_error" | "event", at (ms since 1970), ...}.
const { Manager } = require("socket.io-client");
const msgpackParser = require("socket.io-msgpack-parser");

const clients = new Map();
const say = (line) => process.stdout.write(JSON.stringify(line) + "\n");
const shorten = (value) => (typeof value === "string" && value.length > 100 ? { length: value.length } : value);
const plain = (value) =>
  Buffer.isBuffer(value) || value instanceof ArrayBuffer || ArrayBuffer.isView(value)
    ? { bytes: Buffer.from(value.buffer && !Buffer.isBuffer(value) ? value.buffer : value).toString("hex") }
    : typeof value === "function"
      ? { callback: true }
      : value;

const operations = {
  // brief: long strings are reported by their length. urls: each try to reconnect goes to the next of them.
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
      manager.on("reconnect_attempt", () => (manager.uri = urls[++turn % urls.length]));
    }
    const sockets = {};
    const held = []; // acknowledgements to give later: answer "held"
    for (const nsp of namespaces) {
      const report = (what, more) => say({ name, nsp, what, at: Date.now(), ...more });
      const socket = (sockets[nsp] = manager.socket(nsp, { ...(auth ? { auth } : {}), ...socketOptions }));
      socket.on("connect", () => report("connect", { sid: socket.id, recovered: Boolean(socket.recovered), pid: socket._pid }));
      socket.on("disconnect", (reason) => report("disconnect", { reason }));
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
  // The transport is lost without a word, as when a network goes away.
  cut({ name }) {
    const engine = clients.get(name).manager.engine;
    if (engine.transport.ws) engine.transport.ws.terminate();
    else engine.close(); // polling, or a WebSocket that has just gone
  },
  // What the documentation of Socket.IO uses to try out recovery.
  close_engine({ name }) {
    clients.get(name).manager.engine.close();
  },
  // The client goes on with a new transport while the server still thinks that the old one is open.
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
  // The client stops reading from its socket (WebSocket only), and reads on.
  pause({ name }) {
    const { ws } = clients.get(name).manager.engine.transport;
    if (ws && ws.readyState === ws.OPEN) ws.pause();
    return Boolean(ws && ws.isPaused);
  },
  resume({ name }) {
    const { ws } = clients.get(name).manager.engine.transport;
    if (ws && ws.isPaused) ws.resume();
  },
  move({ name, url }) {
    clients.get(name).manager.uri = url;
  },
  disconnect({ name, nsp = "/" }) {
    clients.get(name).sockets[nsp].disconnect();
  },
  connect({ name, nsp = "/" }) {
    clients.get(name).sockets[nsp].connect();
  },
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
  async call({ name, nsp = "/", event, args = [] }) {
    const decoded = args.map((a) => (a && a.bytes !== undefined ? Buffer.from(a.bytes, "hex") : a));
    const reply = await clients.get(name).sockets[nsp].timeout(10000).emitWithAck(event, ...decoded);
    return plain(reply);
  },
  answer({ name, args = [] }) {
    for (const ack of clients.get(name).held.splice(0)) ack(...args);
  },
  emit({ name, nsp = "/", event, args = [] }) {
    clients.get(name).sockets[nsp].emit(event, ...args);
  },
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
