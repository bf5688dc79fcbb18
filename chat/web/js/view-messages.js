// Shows the messages of one room. It keeps the element of each line, so that it draws only what is new.
import { initials, personColour } from "./colours.js";
import { $, element, write } from "./dom.js";
import { duration, t, time, why } from "./words.js";

const list = $("messages");
let drawn = new Map(); // line -> element
let room = null;
let stuck = true; // whether the list stays scrolled to its end; false once the user scrolls up
list.addEventListener("scroll", () => (stuck = list.scrollHeight - list.scrollTop - list.clientHeight < 80));
new ResizeObserver(() => stuck && (list.scrollTop = list.scrollHeight)).observe(list);

/** Shows a room: first its lines, then the user's messages that are still in the outbox. */
export function show(conversation, name, pending, me, fresh = false) {
  const shown = conversation.rooms.get(name);
  const atEnd = fresh || room !== name || stuck;
  if (room !== name) {
    drawn = new Map();
    list.replaceChildren();
    room = name;
  }
  const lines = shown ? [...shown.lines] : [];
  for (const item of pending) if (item.room === name && !shown?.ids.has(`${me.id}-${item.id}`)) lines.push(item);
  const keep = new Set(lines);
  for (const [line, drawing] of drawn) {
    if (!keep.has(line)) {
      drawing.remove();
      drawn.delete(line);
    }
  }
  let next = list.firstElementChild;
  let before = null;
  for (const line of lines) {
    let drawing = drawn.get(line);
    if (!drawing) drawn.set(line, (drawing = element("li")));
    if (drawing !== next) list.insertBefore(drawing, next);
    else next = next.nextElementSibling;
    update(drawing, line, before, me);
    before = line;
  }
  while (next) {
    const after = next.nextElementSibling;
    next.remove();
    next = after;
  }
  if (!lines.length) list.append(element("li", { class: "empty" }, t("empty")));
  if (atEnd) list.scrollTop = list.scrollHeight;
}

/** Draws a line into its element, or adapts what was drawn there before. */
function update(drawing, line, before, me) {
  if (line.kind === "incident") return incident(drawing, line.incident);
  const pending = line.kind !== "message";
  const message = pending ? { from: me.id, name: me.name, text: line.text, at: line.at } : line.message;
  const mine = message.from === me.id;
  const previous = before && (before.kind === "message" ? before.message : before.kind ? null : { from: me.id, at: before.at });
  const follows = previous && previous.from === message.from && Math.abs(message.at - previous.at) < 120_000;
  const gap = !pending && before?.kind === "message" && message.seq - before.order > 1 && message.seq - before.order < 1_000_000;
  drawing.className = ["message", mine && "mine", pending && "pending", line.caught && "caught", follows && !gap && "follows"].filter(Boolean).join(" ");
  drawing.dataset.gap = gap ? t("gap", { n: message.seq - before.order - 1 }) : "";
  if (drawing.firstChild) return;
  if (!pending) Object.assign(drawing.dataset, { id: message.id, seq: message.seq });
  const at = new Date(message.at);
  drawing.append(
    element("span", { class: "avatar", "aria-hidden": "true", data: { person: personColour(message.from) } }, initials(message.name)),
    element(
      "div",
      { class: "bubble" },
      element(
        "p",
        { class: "by" },
        element("b", {}, message.name),
        element("time", { datetime: at.toISOString() }, time(at)),
        pending && element("em", { title: t("pending-label") }, t("pending")),
      ),
      element("p", { class: "text", dir: "auto" }, message.text),
    ),
  );
}

/** Draws a thin line across the conversation that says what happened to the session at this point. */
function incident(drawing, it) {
  drawing.className = `incident ${it.outcome}${it.reason === "left" ? " calm" : ""}`;
  if (!drawing.firstChild) drawing.append(element("span"));
  write(drawing.firstChild, incidentText(it));
}

/** The text for something that happened to the session. */
export function incidentText(it) {
  const parts = [];
  if (it.outcome === "recovered") {
    parts.push(t("line-recovered", { node: it.node, took: duration(it.took) }));
    parts.push(it.caughtUp ? t("line-caught", { n: it.caughtUp }) : t("line-none"));
  } else if (it.outcome === "fresh") {
    parts.push(t("line-fresh", { node: it.node, why: why(it.reason, it.within) }));
    if (it.anew) parts.push(t("anew"));
    if (it.reloaded) parts.push(t("reloaded", { n: it.reloaded }));
    if (it.missing) parts.push(t("gap", { n: it.missing }));
  } else {
    parts.push(t(`line-${it.outcome}`));
  }
  return parts.join(" · ");
}
