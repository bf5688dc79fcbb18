// Rooms and their messages, as this page knows them. No display, no connection.
//
// Each message has a number, `seq`, in its room: without gaps, the same for everybody. That is the order of the
// conversation, and the proof: a number that is missing is a message that was lost.

const KEPT = 500; // messages of a room
const ANEW = 1_000_000; // no such number of messages was lost: the server's history began anew

export class Room {
  constructor(name) {
    this.name = name;
    this.lines = []; // messages and incidents, sorted by `order`
    this.ids = new Set();
    this.seqs = new Set();
    this.from = 0; // the first number this page should have
    this.last = 0;
    this.unread = 0;
    this.first = 0; // the number the room's history began with
    this.lost = 0; // messages that the server no longer has either
  }

  /** Numbers before `seq` say nothing about those to come. */
  restart(seq) {
    this.seqs = new Set([...this.seqs].filter((number) => number >= seq));
    this.from = this.seqs.size ? Math.min(...this.seqs) : 0;
  }

  /** Numbers that should be here and are not. */
  get missing() {
    return this.lost + (this.seqs.size ? this.last - this.from + 1 - this.seqs.size : 0);
  }
}

export class Conversation {
  constructor() {
    this.rooms = new Map();
    this.seen = 0;
    this.doubled = 0;
  }

  room(name) {
    if (!this.rooms.has(name)) this.rooms.set(name, new Room(name));
    return this.rooms.get(name);
  }

  leave(name) {
    this.rooms.delete(name);
  }

  /** What the server needs to know to send what is missing: the last number of each room. */
  get positions() {
    return Object.fromEntries([...this.rooms.values()].map((room) => [room.name, room.last]));
  }

  get missing() {
    return [...this.rooms.values()].reduce((sum, room) => sum + room.missing, 0);
  }

  /** Adds a message; returns the line, or null if it is here already. */
  add(message, { again = false, caught = false } = {}) {
    const room = this.rooms.get(message.room);
    if (!room) return null; // left meanwhile
    if (room.ids.has(message.id)) {
      if (!again) this.doubled++;
      return null;
    }
    if (message.seq > room.last + ANEW) room.restart(message.seq);
    room.ids.add(message.id);
    room.seqs.add(message.seq);
    if (!room.from) room.from = message.seq;
    room.first ||= message.seq; // nothing had been said before
    room.from = Math.min(room.from, message.seq);
    room.last = Math.max(room.last, message.seq);
    this.seen++;
    const line = { kind: "message", order: message.seq, caught, message };
    insert(room.lines, line);
    return line;
  }

  /** Takes over what the server keeps of a room: for a new session, or a room just joined. */
  take(name, history) {
    const room = this.room(name);
    const had = room.last;
    const anew = had > 0 && history.first !== room.first;
    const start = history.messages.length ? history.messages[0].seq : history.last + 1;
    if (anew) room.restart(history.first || Infinity);
    else if (had && start > had + 1) {
      room.lost += start - had - 1; // more was said than the server keeps
      room.restart(start);
    }
    room.first = history.first;
    const added = history.messages.map((message) => this.add(message, { again: true, caught: had > 0 })).filter(Boolean);
    return { anew, added: added.length };
  }

  /** Notes in every room that something happened to the session, after all that is there. */
  incident(what) {
    for (const room of this.rooms.values()) insert(room.lines, { kind: "incident", order: room.last + 0.5, incident: what });
    return what;
  }

  trim() {
    for (const room of this.rooms.values()) if (room.lines.length > KEPT) room.lines.splice(0, room.lines.length - KEPT);
  }
}

function insert(lines, line) {
  let at = lines.length;
  while (at > 0 && lines[at - 1].order > line.order) at--;
  lines.splice(at, 0, line);
}
