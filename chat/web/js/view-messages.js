// The messages of one room. Lines are found again by what they show, so that nothing is drawn twice.
import { initials, personColour } from "./colours.js";
import { $, element, write } from "./dom.js";
import { duration, t, time, why } from "./words.js";

const list = $("messages");
let drawn = new Map(); // line -> element
let room = null;
let stuck = true; // to the end, until the user looks further up
list.addEventListener("scroll", () => (stuck = list.scrollHeight - list.scrollTop - list.clientHeight < 80));
new ResizeObserver(() => stuck && (list.scrollTop = list.scrollHeight)).observe(list);

/** Shows a room: what it has, then what is pending. */
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
  for (const [line, node] of drawn) {
    if (!keep.has(line)) {
      node.remove();
      drawn.delete(line);
    }
  }
  let next = list.firstElementChild;
  let before = null;
  for (const line of lines) {
    let node = drawn.get(line);
    if (!node) drawn.set(line, (node = draw(line, me)));
    if (node !== next) list.insertBefore(node, next);
    else next = next.nextElementSibling;
    update(node, line, before, me);
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

function draw(line) {
  return element("li");
}

function update(node, line, before, me) {
  if (line.kind === "incident") return incident(node, line.incident);
  const pending = line.kind !== "message";
  const message = pending ? { from: me.id, name: me.name, text: line.text, at: line.at } : line.message;
  const mine = message.from === me.id;
  const previous = before && (before.kind === "message" ? before.message : before.kind ? null : { from: me.id, at: before.at });
  const follows = previous && previous.from === message.from && Math.abs(message.at - previous.at) < 120_000;
  const gap = !pending && before?.kind === "message" && message.seq - before.order > 1 && message.seq - before.order < 1_000_000;
  node.className = ["message", mine && "mine", pending && "pending", line.caught && "caught", follows && !gap && "follows"].filter(Boolean).join(" ");
  node.dataset.gap = gap ? t("gap", { n: message.seq - before.order - 1 }) : "";
  if (node.firstChild) return;
  if (!pending) Object.assign(node.dataset, { id: message.id, seq: message.seq });
  const at = new Date(message.at);
  node.append(
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

/** A thin line across the conversation: what happened to the session here. */
function incident(node, it) {
  node.className = `incident ${it.outcome}${it.reason === "left" ? " calm" : ""}`;
  if (!node.firstChild) node.append(element("span"));
  write(node.firstChild, incidentText(it));
}

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
