// Shows the people in the current room: which node each of them is on, and who is reconnecting.
import { initials, nodeColour, personColour, shortNode } from "./colours.js";
import { $, element, write } from "./dom.js";
import { t } from "./words.js";

export function show(people, room, me) {
  const here = people.filter((person) => person.rooms.includes(room));
  const items = here.map((person) => {
    const lost = person.state !== "here";
    return element(
      "li",
      {
        class: lost ? "lost" : undefined,
        data: { person: person.id, state: person.state, on: person.node },
        "aria-label": t(lost ? "person-lost" : "person-on", { name: person.name, node: person.node }),
      },
      element("span", { class: "avatar", "aria-hidden": "true", data: { person: personColour(person.id) } }, initials(person.name)),
      element("span", { class: "person-name" }, person.name, person.id === me.id && element("small", {}, ` ${t("you")}`)),
      lost
        ? element("em", { class: "waiting" }, t("reconnecting"))
        : element("span", { class: "on-node", title: person.node, data: { node: nodeColour(person.node) } }, shortNode(person.node)),
    );
  });
  const others = people.length - here.length;
  if (others) items.push(element("li", { class: "elsewhere" }, t("elsewhere", { n: others })));
  $("people").replaceChildren(...items);
  write($("people-count"), String(here.length));
}
