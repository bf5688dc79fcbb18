// Shows the connection panel: the connection's state, the session, and the proof that no message is missing.
import { nodeColour } from "./colours.js";
import { $, element, write } from "./dom.js";
import { duration, t, timeWithSeconds, why } from "./words.js";

/** Shows the state of the connection, and which buttons can be used now. */
export function state(session) {
  const node = session.welcome?.node;
  const text = t(`is-${session.state}`, { node });
  document.body.dataset.state = session.state;
  if (node) $("open-panel").dataset.node = nodeColour(node);
  write($("state"), text);
  write($("state-again"), text);
  const active = ["connecting", "here", "lost"].includes(session.state);
  write($("toggle"), t(active ? "disconnect" : "connect"));
  $("toggle").classList.toggle("primary", !active);
  $("drop").disabled = $("kill").disabled = session.state !== "here";
}

/** Shows what the server's welcome says about the session. */
export function welcome(it) {
  write($("node"), it.node);
  write($("recovered"), it.recovered ? t("yes") : t("no", { why: why(it.deliberate && it.reason === "unknown" ? "left" : it.reason, it.within) }));
  $("recovered").dataset.recovered = it.recovered ? "yes" : it.reason;
  write($("caught-up"), it.recovered ? String(it.caughtUp) : "–");
  write($("took"), it.took === null ? "–" : duration(it.took));
  $("took").dataset.ms = it.took ?? "";
  write($("sid"), it.sid);
  $("kill").hidden = !it.demo;
}

/** Shows how many messages were seen, are missing, and came twice. */
export function proof(conversation, offset) {
  write($("seen"), String(conversation.seen));
  write($("missing"), String(conversation.missing));
  write($("doubled"), String(conversation.doubled));
  write($("offset"), offset ?? "–");
  $("missing").parentElement.classList.toggle("bad", conversation.missing > 0);
  $("doubled").parentElement.classList.toggle("bad", conversation.doubled > 0);
}

/** Adds a line to the list of what happened. The newest line is at the top. */
export function happened(kind, text) {
  $("events").prepend(element("li", { class: kind }, element("time", {}, timeWithSeconds(Date.now())), element("span", {}, text)));
  while ($("events").children.length > 50) $("events").lastElementChild.remove();
}
