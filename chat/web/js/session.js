// The session of this page with the server: its connection and its state. It dispatches these events:
//
//   state                     `session.state` changed: "connecting", "here", "lost", "left", "ended"
//   welcome {detail}          the server has welcomed this client; everything that it missed came before this
//   message, people, typing   the server sent this event; its data is in {detail}
import { io } from "/socket.io.js";

const ANSWER_WITHIN = 8000; // how long to wait for an answer, in milliseconds

export class Session extends EventTarget {
  /** @param introduce () => {name, client, rooms}: what the client says about itself each time it connects */
  constructor(introduce) {
    super();
    this.state = "connecting";
    this.welcome = null; // the last welcome
    this.offset = null; // how far this client has received the log
    this.lostAt = null; // when the connection was lost, in ms by this machine's clock
    this.skew = 0; // how far the server's clock is ahead of this machine's, in ms
    this.caughtUp = 0; // how many messages came between the connect and the welcome
    this.counting = false; // whether the welcome is still to come
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
      // The client gets everything that it missed before the welcome, and everything new after it.
      this.caughtUp = 0;
      this.counting = true;
    });
    // The server adds the offset to each event as its last argument. The client library has no public way to read it.
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

  /** Sends an event and resolves with the server's answer. Rejects if there is no connection or no answer comes. */
  async ask(event, value) {
    if (this.state !== "here" || !this.socket.connected) throw new Error("no connection");
    return await this.socket.timeout(ANSWER_WITHIN).emitWithAck(event, value);
  }

  /** Sends an event that may get lost. */
  mention(event, value) {
    if (this.state === "here") this.socket.volatile.emit(event, value);
  }

  /** Connects again after the session ended. */
  connect() {
    this.socket.connect();
    this.#change("connecting");
  }

  /** Leaves on purpose, which ends the session. */
  disconnect() {
    const connected = this.socket.connected;
    this.socket.disconnect();
    if (!connected) this.#leave("left");
  }

  /** Breaks the connection, as if the network had failed. The session can be recovered. */
  drop() {
    const { engine } = this.socket.io;
    if (engine.transport.name === "websocket") engine.transport.ws.close();
    else engine.close();
  }

  /** Asks the node that this client is on to kill itself. */
  kill() {
    this.socket.volatile.emit("kill");
  }
}
