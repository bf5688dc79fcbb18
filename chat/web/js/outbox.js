// The outbox: the messages of this user that the server has not confirmed. It sends them in order, one at a time, and
// each of them again until there is an answer.
//
// It does not rely on the buffer of the client library. A message that was on its way when the connection was lost is
// in no buffer, and perhaps the server stored it and only the answer was lost. So each message has an id by which the
// server recognises it, and the outbox sends it until it is answered: to another node, in another session, after a
// reload. If the message comes back as an event, this is an answer too. After a recovery that happens before anything
// is sent again.
//
// Events: "change": the items changed; "taken" {detail: {item, answer}}: the server stored a message;
// "refused" {detail: {item, answer}}: it refused a message
import { random } from "./identity.js";

const AGAIN = 70; // how long to wait after a failure, in milliseconds

export class Outbox extends EventTarget {
  /**
   * @param ask (item) => Promise of the server's answer; it rejects if no answer comes
   * @param ready () => whether there is a connection
   * @param storage {get(): items, set(items)}; keeps the items when the page is reloaded
   */
  constructor(ask, ready, storage) {
    super();
    this.ask = ask;
    this.ready = ready;
    this.storage = storage;
    this.items = storage.get();
    this.sending = false;
  }

  /** Adds a message to the outbox and returns its item. */
  add(room, text) {
    const item = { id: random(), room, text, at: Date.now() };
    this.items.push(item);
    this.#changed();
    this.flush();
    return item;
  }

  /** Sends the messages until none is left or there is no connection. */
  async flush() {
    if (this.sending) return;
    this.sending = true;
    while (this.items.length && this.ready()) {
      const item = this.items[0];
      let answer;
      try {
        answer = await this.ask({ id: item.id, room: item.room, text: item.text });
      } catch {
        await pause(AGAIN);
        continue; // if there still is a connection; otherwise the next welcome calls flush()
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

  /** Removes a message that the server has answered. Returns whether it was still in the outbox. */
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
