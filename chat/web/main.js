// The page: messages, and what becomes of the session when the connection is lost.
import { io } from "/socket.io.js";

const ANSWER_WITHIN = 10_000; // milliseconds

const $ = (id) => document.getElementById(id);
const messages = $("messages");
const name = $("name");
const text = $("text");

name.value = remembered();

const socket = io({
  // Asked for at each connect: a session that could not be recovered begins with the name of now.
  auth: (send) => send({ name: name.value }),
  reconnectionDelayMax: 3000,
});

// -- the session ---------------------------------------------------------------------------------

let connects = 0;
let caughtUp = 0;
let counting = false;

socket.on("connect", async () => {
  const mine = ++connects;
  // What was missed comes before the answer to "hello".
  caughtUp = 0;
  counting = true;
  show("Connected:");
  let here;
  try {
    here = await socket.timeout(ANSWER_WITHIN).emitWithAck("hello");
  } catch {
    return; // disconnected again
  } finally {
    if (mine === connects) counting = false;
  }
  if (mine !== connects || !socket.connected) return;
  $("node").textContent = here.node;
  $("sid").textContent = here.sid;
  $("recovered").textContent = socket.recovered ? "yes" : `no (${here.reason})`;
  $("caught-up").textContent = caughtUp;
  $("where").hidden = false;
  $("kill").hidden = !here.demo;
  name.placeholder = here.name;
  if (socket.recovered) {
    note(`Back, on ${here.node}: the same session, ${caughtUp} ${caughtUp === 1 ? "event" : "events"} caught up.`);
    if (name.value.trim() && name.value.trim() !== here.name) rename(); // changed while away
  } else {
    note(mine === 1 ? `A session on ${here.node}.` : `A new session on ${here.node}: what was said meanwhile is missing here.`);
  }
});

socket.on("disconnect", (reason, details) => {
  const left = reason === "io client disconnect";
  const ended = left || reason === "io server disconnect";
  counting = false;
  show(left ? "Disconnected: you left the session." : ended ? "Disconnected: the server ended the session." : "Connection lost, reconnecting …");
  note(left ? "You left the session." : ended ? "The server ended the session." : `Connection lost (${reason}).`);
});

socket.on("connect_error", () => {
  if (socket.active) show("No node can be reached, trying again …");
  else show("The server refused the connection.");
});

function show(state) {
  $("state").textContent = state;
  $("where").hidden = true;
  $("toggle").textContent = socket.active ? "Disconnect" : "Connect";
  $("drop").disabled = $("kill").disabled = !socket.connected;
}

$("toggle").addEventListener("click", () => {
  if (socket.active) {
    const connected = socket.connected;
    socket.disconnect();
    if (!connected) show("Disconnected: you left the session.");
  } else {
    socket.connect();
    show("Connecting …");
  }
});

$("drop").addEventListener("click", () => socket.io.engine.close());
$("kill").addEventListener("click", () => socket.emit("kill"));

// -- the messages --------------------------------------------------------------------------------

// The server adds a last argument to each event: the position up to which this client has seen the log.
// The client library keeps it; here it is ignored.
socket.onAny(() => {
  if (counting) caughtUp++;
});

socket.on("message", (message) => {
  const line = document.createElement("li");
  line.dataset.id = message.id;
  const at = new Date(message.at);
  const time = element("time", at.toLocaleTimeString());
  time.dateTime = at.toISOString();
  line.append(time, element("b", message.name), element("span", message.text));
  append(line);
});

function note(what) {
  const line = element("li", what);
  line.className = "note";
  append(line);
}

function element(tag, content) {
  const made = document.createElement(tag);
  made.textContent = content;
  return made;
}

function append(line) {
  const atEnd = messages.scrollHeight - messages.scrollTop - messages.clientHeight < 40;
  messages.append(line);
  if (atEnd) messages.scrollTop = messages.scrollHeight;
}

// -- the form ------------------------------------------------------------------------------------

$("form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const said = text.value;
  if (!said.trim()) return;
  if (!socket.active) {
    problem("You left the session: connect to send messages.");
    return;
  }
  text.value = "";
  // Written while the connection is lost, it is sent when the client is back.
  const answer = await ask("say", said);
  if (answer.error) {
    problem(`Not sent: ${answer.error}`);
    text.value ||= said;
  } else {
    problem("");
  }
});

name.addEventListener("change", () => {
  remember(name.value.trim());
  if (socket.connected) rename();
});

async function rename() {
  if (!name.value.trim()) return;
  const answer = await ask("rename", name.value);
  problem(answer.error ? `The name could not be changed: ${answer.error}` : "");
}

async function ask(event, value) {
  try {
    return await socket.timeout(ANSWER_WITHIN).emitWithAck(event, value);
  } catch {
    return { error: "no answer came; it may have arrived all the same" };
  }
}

function problem(what) {
  $("problem").textContent = what;
}

// Storage may be forbidden; then the name is forgotten with the page.
function remembered() {
  try {
    return localStorage.getItem("name") ?? "";
  } catch {
    return "";
  }
}

function remember(value) {
  try {
    localStorage.setItem("name", value);
  } catch {
    // as said
  }
}
