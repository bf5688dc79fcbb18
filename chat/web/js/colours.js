// Colours have names in the style sheets; here is which thing has which.

const NODES = 6; // --node-0 … --node-5
const PEOPLE = 8; // --person-0 … --person-7

/** A node's colour: by its last letter or digit, so that node-a, node-b, node-c differ, on every page. */
export const nodeColour = (name) => (name.charCodeAt(name.length - 1) + 5) % NODES; // node-a has the first

export function personColour(id) {
  return [...id].reduce((sum, c) => (sum * 31 + c.charCodeAt(0)) >>> 0, 7) % PEOPLE;
}

/** The first letters of a name, for a small round picture. */
export function initials(name) {
  const words = name.trim().split(/\s+/);
  const letters = words.length > 1 ? [words[0], words[words.length - 1]].map((word) => [...word][0]) : [...words[0]].slice(0, 1);
  return letters.join("").toUpperCase();
}

/** The short name of a node: what tells it from its siblings. */
export const shortNode = (name) => name.replace(/^node-/, "");
