// Which node and which person has which colour. The style sheets define the colours by numbers.

const NODES = 6; // --node-0 … --node-5
const PEOPLE = 8; // --person-0 … --person-7

/** The number of a node's colour. It depends on the last letter of the name, so node-a, node-b and node-c differ. */
export const nodeColour = (name) => (name.charCodeAt(name.length - 1) + 5) % NODES; // node-a has colour 0

/** The number of a person's colour, which depends on the person's id. */
export function personColour(id) {
  return [...id].reduce((sum, c) => (sum * 31 + c.charCodeAt(0)) >>> 0, 7) % PEOPLE;
}

/** The initials of a name, for the small round picture of a person. */
export function initials(name) {
  const words = name.trim().split(/\s+/);
  const letters = words.length > 1 ? [words[0], words[words.length - 1]].map((word) => [...word][0]) : [...words[0]].slice(0, 1);
  return letters.join("").toUpperCase();
}

/** The short name of a node: "a" for node-a. */
export const shortNode = (name) => name.replace(/^node-/, "");
