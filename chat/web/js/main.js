// The chat's page. This file connects the parts: it passes what the session reports to the files that keep or show it.
import { Conversation } from "./conversation.js";
import { $, write } from "./dom.js";
import * as identity from "./identity.js";
import { Outbox } from "./outbox.js";
import { Session } from "./session.js";
import * as messagesView from "./view-messages.js";
import * as panel from "./view-panel.js";
import * as peopleView from "./view-people.js";
import * as roomsView from "./view-rooms.js";
import * as timeline from "./view-timeline.js";
import { language, t, translate, why } from "./words.js";

const LOBBY = "lobby";
const TYPING_EVERY = 2000; // how often to tell the others that the user is typing, in milliseconds
const TYPING_FOR = 4000; // how long the page shows that somebody is typing, in milliseconds

translate();
const client = await identity.clientId();
if (!client.same) identity.pending.set([]); // they belong to another tab
const me = { id: "", name: identity.name.get() };
const conversation = new Conversation();
let current = LOBBY;
let people = [];
let loss = null; // the incident of a lost connection, until the session goes on or ends
conversation.room(LOBBY);
$("name").value = me.name;

const session = new Session(() => ({ name: $("name").value, client: client.id, rooms: conversation.positions }));
const outbox = new Outbox((item) => session.ask("say", item), () => session.state === "here", identity.pending);

// -- the session ---------------------------------------------------------------------------------

session.addEventListener("state", () => {
  if (session.state === "lost") {
    loss = conversation.incident({ outcome: "lost" });
    timeline.depart("lost");
    panel.happened("lost", t("happened-lost", { node: session.welcome?.node ?? "", why: session.reason }));
  } else if (session.state === "left" || session.state === "ended") {
    if (session.welcome) {
      if (loss) loss.outcome = session.state;
      else loss = conversation.incident({ outcome: session.state });
      timeline.depart("left");
    }
    panel.happened(session.state, t(`line-${session.state}`));
  }
  typists.clear();
  // The server tells the other clients within a second. This page changes its own list at once.
  if (session.state === "left" || session.state === "ended") people = people.filter((person) => person.id !== me.id);
  else if (session.state === "lost") people = people.map((person) => (person.id === me.id ? { ...person, state: "reconnecting" } : person));
  panel.state(session);
  notice();
  show();
});

session.addEventListener("welcome", ({ detail: it }) => {
  const first = !me.id;
  me.id = it.id;
  me.name = it.name;
  people = it.people;
  timeline.know(it.nodes);
  let reloaded = 0;
  let anew = false;
  const lostBefore = conversation.missing;
  // The connection was lost before a `join` was answered: the server says that the client is in the room.
  const unknown = it.rooms.filter((room) => !conversation.rooms.has(room) && !it.histories[room]);
  for (const room of it.rooms) conversation.room(room);
  for (const room of unknown) ask("join", { room }).then((answer) => answer?.history && (conversation.take(room, answer.history), show()));
  for (const room of conversation.rooms.keys()) if (!it.rooms.includes(room)) conversation.leave(room);
  if (!conversation.rooms.has(current)) current = LOBBY;
  for (const [room, history] of Object.entries(it.histories)) {
    const taken = conversation.take(room, history);
    reloaded += taken.added;
    anew ||= taken.anew;
  }
  const outcome = first ? "first" : it.recovered ? "recovered" : "fresh";
  const reason = it.deliberate && it.reason === "unknown" ? "left" : it.reason;
  const incident = { ...it, outcome, reason, reloaded, anew, missing: conversation.missing - lostBefore };
  if (outcome === "first") {
    panel.happened("first", t("happened-first", { node: it.node }));
    if (it.name !== $("name").value.trim()) $("name").placeholder = it.name;
  } else {
    // The line of the incident stays where it is. The messages that were missed stand below it.
    if (loss) Object.assign(loss, incident);
    else conversation.incident(incident);
    panel.happened(outcome, messagesView.incidentText(incident));
  }
  timeline.arrive(it.node, outcome, it.caughtUp);
  loss = null;
  fresh = outcome === "fresh" && reason !== "left" ? it : null;
  panel.state(session);
  panel.welcome(it);
  notice();
  show();
  const wanted = $("name").value.trim();
  if (wanted && wanted !== it.name) rename();
  outbox.flush();
});

let fresh = null; // the last welcome, if it began a new session although the user had not left

function notice() {
  const offline = session.state === "lost" || session.state === "connecting";
  const text =
    session.state === "left" || session.state === "ended"
      ? t(`notice-${session.state}`)
      : session.state === "here" && fresh
        ? t("notice-fresh", { why: why(fresh.reason, fresh.within) })
        : offline && offlineFor > 3
          ? t("notice-offline")
          : "";
  write($("notice"), text);
  $("notice").hidden = !text;
}

let offlineFor = 0; // how long there has been no connection, in seconds
setInterval(() => {
  offlineFor = session.state === "lost" || session.state === "connecting" ? offlineFor + 1 : 0;
  if (offlineFor === 4) notice();
}, 1000);

$("toggle").addEventListener("click", () => {
  if (["connecting", "here", "lost"].includes(session.state)) session.disconnect();
  else session.connect();
});
$("drop").addEventListener("click", () => session.drop());
$("kill").addEventListener("click", () => session.kill());
// The user closes the tab, so the session ends.
addEventListener("pagehide", (event) => event.persisted || session.socket.disconnect());
addEventListener("beforeunload", (event) => outbox.items.length && event.preventDefault());

// -- messages ------------------------------------------------------------------------------------

session.addEventListener("message", ({ detail: message }) => received(message, session.counting));

function received(message, caught) {
  typists.delete(`${message.room} ${message.from}`);
  const mine = message.from === me.id;
  if (mine) outbox.confirm(message.id.slice(me.id.length + 1));
  if (!conversation.add(message, { caught })) return;
  conversation.trim();
  if (message.room !== current || document.hidden) {
    if (!mine) conversation.room(message.room).unread++;
  }
  timeline.message(caught ? message.at - session.skew : Date.now(), { caught, mine });
  show();
}

document.addEventListener("visibilitychange", () => {
  if (document.hidden) return;
  conversation.room(current).unread = 0;
  show();
});

outbox.addEventListener("change", show);
outbox.addEventListener("taken", ({ detail: { item, answer } }) => {
  // Most messages come back as an event first. One that was sent again in a new session may not.
  const message = { id: answer.id, seq: answer.seq, at: answer.at, room: item.room, from: me.id, name: me.name, text: item.text };
  if (conversation.add(message, { again: true })) show();
});
outbox.addEventListener("refused", ({ detail: { item, answer } }) => {
  problem("problem", answer.error);
  $("text").value ||= item.text;
});

$("say").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = $("text").value.trim();
  if (!text) return;
  problem("problem", null);
  outbox.add(current, text);
  $("text").value = "";
  typingAt = 0;
  show(true);
});

function problem(where, code) {
  const known = ["fast", "invalid", "empty", "long", "room", "rooms", "outside", "lobby", "offline"];
  write($(where), code ? t(`problem-${known.includes(code) ? code : "unavailable"}`) : "");
}

// -- typing --------------------------------------------------------------------------------------

const typists = new Map(); // "room id" -> {name, room, until}
let typingAt = 0;

$("text").addEventListener("input", () => {
  if (!$("text").value || Date.now() - typingAt < TYPING_EVERY) return;
  typingAt = Date.now();
  session.mention("typing", { room: current });
});

session.addEventListener("typing", ({ detail: { id, name, room } }) => {
  typists.set(`${room} ${id}`, { name, room, until: Date.now() + TYPING_FOR });
  showTyping();
});
setInterval(showTyping, 500);

function showTyping() {
  const now = Date.now();
  for (const [key, typist] of typists) if (typist.until < now) typists.delete(key);
  const names = [...typists.values()].filter((typist) => typist.room === current).map((typist) => typist.name);
  const text = names.length ? t(names.length > 1 ? "typing-many" : "typing", { names: names.slice(0, 3).join(t("and")) }) : "";
  write($("typing"), text);
}

// -- people, name, rooms -------------------------------------------------------------------------

session.addEventListener("people", ({ detail }) => {
  people = detail;
  timeline.know(people.map((person) => person.node));
  show();
});

$("name").addEventListener("change", () => {
  identity.name.set($("name").value.trim());
  rename();
});
$("name").addEventListener("keydown", (event) => event.key === "Enter" && $("text").focus());

async function rename() {
  const name = $("name").value.trim();
  if (!name || name === me.name) return;
  const answer = await ask("rename", { name });
  if (answer?.name) me.name = answer.name;
  else if (answer) problem("problem", answer.error); // if there is no answer, the next welcome renames again
}

$("join").addEventListener("submit", async (event) => {
  event.preventDefault();
  const answer = await ask("join", { room: $("room").value });
  problem("join-problem", !answer ? "offline" : (answer.error ?? null));
  if (!answer || answer.error) return;
  $("room").value = "";
  conversation.take(answer.room, answer.history);
  choose(answer.room);
});

async function leave(room) {
  const answer = await ask("leave", { room });
  problem("join-problem", !answer ? "offline" : (answer.error ?? null));
  if (!answer || answer.error) return;
  conversation.leave(room);
  choose(room === current ? LOBBY : current);
}

function choose(room) {
  current = room;
  conversation.room(room).unread = 0;
  close();
  show(true);
  showTyping();
  if (matchMedia("(hover: hover)").matches) $("text").focus();
}

async function ask(event, value) {
  try {
    return await session.ask(event, value);
  } catch {
    return null;
  }
}

addEventListener("keydown", (event) => {
  if (event.key === "Escape") close();
  if (!event.altKey || !["ArrowUp", "ArrowDown"].includes(event.key)) return;
  event.preventDefault();
  const rooms = [...document.querySelectorAll("#rooms [data-room]")].map((button) => button.dataset.room);
  const at = rooms.indexOf(current) + (event.key === "ArrowDown" ? 1 : -1);
  choose(rooms[(at + rooms.length) % rooms.length]);
});

// -- on a phone, the sides are sheets ------------------------------------------------------------

const sheets = { "open-rooms": "rooms-side", "open-panel": "panel" };
for (const [button, side] of Object.entries(sheets))
  $(button).addEventListener("click", () => {
    const open = !$(side).classList.contains("open");
    close();
    $(side).classList.toggle("open", open);
    $(button).setAttribute("aria-expanded", String(open));
  });

function close() {
  for (const [button, side] of Object.entries(sheets)) {
    $(side).classList.remove("open");
    $(button).setAttribute("aria-expanded", "false");
  }
}

// -- showing -------------------------------------------------------------------------------------

let wanted = null;

/** Shows everything as it is now. Changes that happen at the same time are shown together. */
function show(atEnd = false) {
  if (wanted) wanted.atEnd ||= atEnd === true;
  else {
    wanted = { atEnd: atEnd === true };
    queueMicrotask(() => {
      const { atEnd } = wanted;
      wanted = null;
      roomsView.show(conversation, current, people, choose, leave);
      peopleView.show(people, current, me);
      messagesView.show(conversation, current, outbox.items, { ...me, name: me.name || $("name").value || t("you") }, atEnd);
      panel.proof(conversation, session.offset);
      $("text").placeholder = t("message-to", { room: current });
      write($("say").querySelector("button span"), t(session.state === "here" ? "send" : "send-later"));
    });
  }
}

panel.state(session);
show();
document.documentElement.lang = language;
