// The rooms and their messages, as far as this page knows them. This file neither shows nor sends anything.
//
// The server numbers the messages of a room without gaps, in `seq`. The numbers are the same for everybody. They give
// the order of the conversation, and they prove that it is complete: if a number is missing here, a message was lost.

const KEPT = 500; // how many messages of a room are kept
const ANEW = 1_000_000; // if the numbers jump this far, no messages were lost: the server's history began anew

/** A room that this client is in. */
export class Room {
  constructor(name) {
    this.name = name;
    this.lines = []; // messages and incidents, sorted by `order`
    this.ids = new Set(); // of the messages in `lines`, and of those that were trimmed
    this.seqs = new Set(); // the numbers of the messages that arrived
    this.from = 0; // the first number this page should have
    this.last = 0; // the greatest number that arrived
    this.unread = 0;
    this.first = 0; // the number with which the room's history began
    this.lost = 0; // how many missing messages the server does not have any more either
  }

  /** Counts missing messages only from `seq` on, because earlier numbers say nothing about those to come. */
  restart(seq) {
    this.seqs = new Set([...this.seqs].filter((number) => number >= seq));
    this.from = this.seqs.size ? Math.min(...this.seqs) : 0;
  }

  /** How many messages should be here and are not. */
  get missing() {
    return this.lost + (this.seqs.size ? this.last - this.from + 1 - this.seqs.size : 0);
  }
}

/** All rooms that this client is in. */
export class Conversation {
  constructor() {
    this.rooms = new Map();
    this.seen = 0; // how many messages arrived
    this.doubled = 0; // how many arrived a second time
  }

  /** The room with this name, which is added if it is new. */
  room(name) {
    if (!this.rooms.has(name)) this.rooms.set(name, new Room(name));
    return this.rooms.get(name);
  }

  leave(name) {
    this.rooms.delete(name);
  }

  /** The last number of each room. The server needs them to send what is missing. */
  get positions() {
    return Object.fromEntries([...this.rooms.values()].map((room) => [room.name, room.last]));
  }

  /** How many messages are missing in all rooms together. */
  get missing() {
    return [...this.rooms.values()].reduce((sum, room) => sum + room.missing, 0);
  }

  /**
   * Adds a message. Returns its line; null if the message is here already, or this client has left the room.
   * @param again whether the message may be here already, so that it does not count as doubled
   * @param caught whether the client missed the message at first and caught up
   */
  add(message, { again = false, caught = false } = {}) {
    const room = this.rooms.get(message.room);
    if (!room) return null; // the client has left the room meanwhile
    if (room.ids.has(message.id)) {
      if (!again) this.doubled++;
      return null;
    }
    if (message.seq > room.last + ANEW) room.restart(message.seq);
    room.ids.add(message.id);
    room.seqs.add(message.seq);
    if (!room.from) room.from = message.seq;
    room.first ||= message.seq; // it is the first message of the room
    room.from = Math.min(room.from, message.seq);
    room.last = Math.max(room.last, message.seq);
    this.seen++;
    const line = { kind: "message", order: message.seq, caught, message };
    insert(room.lines, line);
    return line;
  }

  /**
   * Adds what the server keeps of a room, for a new session or for a room that was just joined.
   * Returns `anew`, whether the server's history of the room began anew, and `added`, the number of new messages.
   */
  take(name, history) {
    const room = this.room(name);
    const had = room.last;
    const anew = had > 0 && history.first !== room.first;
    const start = history.messages.length ? history.messages[0].seq : history.last + 1;
    if (anew) room.restart(history.first || Infinity);
    else if (had && start > had + 1) {
      room.lost += start - had - 1; // more messages were sent than the server keeps
      room.restart(start);
    }
    room.first = history.first;
    const added = history.messages.map((message) => this.add(message, { again: true, caught: had > 0 })).filter(Boolean);
    return { anew, added: added.length };
  }

  /** Adds a line to the end of every room that says what happened to the session. */
  incident(what) {
    for (const room of this.rooms.values()) insert(room.lines, { kind: "incident", order: room.last + 0.5, incident: what });
    return what;
  }

  /** Removes the oldest lines of rooms that have more than are kept. */
  trim() {
    for (const room of this.rooms.values()) if (room.lines.length > KEPT) room.lines.splice(0, room.lines.length - KEPT);
  }
}

/** Inserts a line at its place in the order. */
function insert(lines, line) {
  let at = lines.length;
  while (at > 0 && lines[at - 1].order > line.order) at--;
  lines.splice(at, 0, line);
}
