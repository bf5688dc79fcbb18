// Shows the rooms that this client is in, and suggests the other rooms that people are in.
import { $, element, write } from "./dom.js";
import { t } from "./words.js";

const LOBBY = "lobby";

/** @param choose, leave (room) => void; called when the user chooses or leaves a room */
export function show(conversation, current, people, choose, leave) {
  const rooms = [...conversation.rooms.values()].sort((a, b) => (b.name === LOBBY) - (a.name === LOBBY) || a.name.localeCompare(b.name));
  const focused = document.activeElement?.dataset?.room;
  $("rooms").replaceChildren(
    ...rooms.map((room) =>
      element(
        "li",
        { class: room.name === current ? "current" : undefined },
        element(
          "button",
          {
            type: "button",
            data: { room: room.name },
            "aria-current": room.name === current ? "true" : undefined,
            "aria-label": room.unread ? t("room-unread", { room: room.name, n: room.unread }) : undefined,
            on: { click: () => choose(room.name) },
          },
          element("span", { class: "hash", "aria-hidden": "true" }, "#"),
          element("span", { class: "room-name" }, room.name),
          room.unread > 0 && element("b", { class: "badge" }, room.unread > 99 ? "99+" : String(room.unread)),
        ),
        room.name !== LOBBY &&
          element("button", { type: "button", class: "leave", "aria-label": t("leave-room", { room: room.name }), title: t("leave-room", { room: room.name }), on: { click: () => leave(room.name) } }, "×"),
      ),
    ),
  );
  if (focused) document.querySelector(`#rooms [data-room="${CSS.escape(focused)}"]`)?.focus();
  const others = new Set(people.flatMap((person) => person.rooms).filter((room) => !conversation.rooms.has(room)));
  $("known-rooms").replaceChildren(...[...others].sort().map((room) => element("option", { value: room })));
  const unread = rooms.reduce((sum, room) => sum + room.unread, 0);
  $("all-unread").hidden = !unread;
  write($("all-unread"), unread > 99 ? "99+" : String(unread));
  document.title = (unread ? `(${unread}) ` : "") + `#${current} · ${t("title")}`;
  write($("room-title"), `# ${current}`);
}
