// What this user said and the server has not confirmed. One at a time, in order, each until there is an answer.
//
// The client library's own buffer is not used: a message that was on its way when the connection was lost is in no
// buffer, and its answer may have been lost after the server took it. So each message has an id that the server knows
// again, and it is sent until it is answered: on another node, in another session, after a reload. That it comes back
// as an event is an answer too: after a recovery it does so before anything is sent again.
//
// Events: "change"; "taken" {detail: {item, answer}}; "refused" {detail: {item, answer}}
import { random } from "./identity.js";

const AGAIN = 700; // milliseconds

export class Outbox extends EventTarget {
  /**
   * @param ask (item) => Promise of the server's answer; rejects if there is none
   * @param ready whether there is a connection
   * @param storage {get(): items, set(items)}
   */
  constructor(ask, ready, storage) {
    super();
    this.ask = ask;
    this.ready = ready;
    this.storage = storage;
    this.items = storage.get();
    this.sending = false;
  }

  add(room, text) {
    const item = { id: random(), room, text, at: Date.now() };
    this.items.push(item);
    this.#changed();
    this.flush();
    return item;
  }

  async flush() {
    if (this.sending) return;
    this.sending = true;
    while (this.items.length && this.ready()) {
      const item = this.items[0];
      let answer;
      try {
        answer = await this.ask({ id: item.id, room: item.room, text: item.text });
      } catch {
        await pause(AGAIN / 10);
        continue; // if there still is a connection; else the next welcome flushes
      }
      if (answer.retry) {
        await pause(Math.min(answer.retry, 5000));
        continue;
      }
      if (!this.confirm(item.id)) continue;
      this.dispatchEvent(new CustomEvent(answer.error ? "refused" : "taken", { detail: { item, answer } }));
    }
    this.sending = false;
  }

  /** The message is everybody's: it needs no answer any more. Returns whether it was waiting for one. */
  confirm(id) {
    const at = this.items.findIndex((item) => item.id === id);
    if (at < 0) return false;
    this.items.splice(at, 1);
    this.#changed();
    return true;
  }

  #changed() {
    this.storage.set(this.items);
    this.dispatchEvent(new Event("change"));
  }
}

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
