// The session: the connection, and what becomes of it. Others listen to its events:
//
//   state                     `session.state` changed: "connecting", "here", "lost", "left", "ended"
//   welcome {detail}          the server took this client in, with all it missed before it
//   message, people, typing   what the server sent; {detail}
import { io } from "/socket.io.js";

const ANSWER_WITHIN = 8000; // milliseconds

export class Session extends EventTarget {
  /** @param introduce what the server is told at each connect: () => {name, client, rooms} */
  constructor(introduce) {
    super();
    this.state = "connecting";
    this.welcome = null; // the last one
    this.offset = null; // the position up to which this client has seen the log
    this.lostAt = null; // ms, this machine's clock
    this.skew = 0; // the server's clock, ahead of this one's, in ms
    this.caughtUp = 0;
    this.counting = false;
    this.socket = io({
      auth: (send) => send(introduce()),
      reconnectionDelay: 150,
      reconnectionDelayMax: 1500,
      timeout: 5000,
    });
    this.#listen(this.socket);
  }

  #listen(socket) {
    socket.on("connect", () => {
      // What was missed comes before the welcome, what is new after it.
      this.caughtUp = 0;
      this.counting = true;
    });
    // The server adds a last argument to each event: its offset. The client library keeps it for itself.
    socket.onAny((event, ...args) => {
      const last = args[args.length - 1];
      if (typeof last === "string" && args.length) this.offset = last;
      if (event === "message" && this.counting) this.caughtUp++;
    });
    socket.on("welcome", (detail) => {
      const now = Date.now();
      this.counting = false;
      this.welcome = {
        ...detail,
        sid: socket.id,
        caughtUp: detail.recovered ? this.caughtUp : null,
        took: this.lostAt === null ? null : now - this.lostAt,
        lostAt: this.lostAt,
        deliberate: this.state === "left" || this.#left,
      };
      this.#left = false;
      this.skew = detail.now - now;
      this.lostAt = null;
      this.#change("here");
      this.#tell("welcome", this.welcome);
    });
    for (const event of ["message", "people", "typing"]) socket.on(event, (detail) => this.#tell(event, detail));
    socket.on("disconnect", (reason) => {
      this.counting = false;
      if (reason === "io client disconnect") return this.#leave("left");
      if (reason === "io server disconnect") return this.#leave("ended");
      this.lostAt ??= Date.now();
      this.reason = reason;
      this.#change("lost");
    });
    socket.on("connect_error", () => {
      if (!socket.active) this.#leave("ended");
    });
  }

  #left = false;

  #leave(state) {
    this.lostAt = null;
    this.#left = state === "left";
    this.#change(state);
  }

  #change(state) {
    this.state = state;
    this.#tell("state", state);
  }

  #tell(what, detail) {
    this.dispatchEvent(new CustomEvent(what, { detail }));
  }

  /** Asks the server; resolves with its answer. Rejects at once without a connection, or if no answer comes. */
  async ask(event, value) {
    if (this.state !== "here" || !this.socket.connected) throw new Error("no connection");
    return await this.socket.timeout(ANSWER_WITHIN).emitWithAck(event, value);
  }

  /** Tells the server what is not worth keeping. */
  mention(event, value) {
    if (this.state === "here") this.socket.volatile.emit(event, value);
  }

  connect() {
    this.socket.connect();
    this.#change("connecting");
  }

  /** Leaves on purpose: the session ends. */
  disconnect() {
    const connected = this.socket.connected;
    this.socket.disconnect();
    if (!connected) this.#leave("left");
  }

  /** Loses the connection, as when a network goes away. */
  drop() {
    const { engine } = this.socket.io;
    if (engine.transport.name === "websocket") engine.transport.ws.close();
    else engine.close();
  }

  kill() {
    this.socket.volatile.emit("kill");
  }
}
