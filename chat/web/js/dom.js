// Makes elements of the page without parsing HTML. So what other people write is always shown as text.

export const $ = (id) => document.getElementById(id);

/** Makes an HTML element with properties (`class`, `data`, `on`, or any attribute) and children (elements or texts). */
export function element(tag, properties = {}, ...children) {
  return fill(document.createElement(tag), properties, children);
}

/** Makes an SVG element in the same way. */
export function svg(tag, properties = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", tag), properties, children);
}

function fill(made, properties, children) {
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (name === "data") Object.assign(made.dataset, value);
    else if (name === "on") for (const [event, handler] of Object.entries(value)) made.addEventListener(event, handler);
    else made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return made;
}

/** Sets the text of an element only if it changed, so that a screen reader does not read it out again. */
export function write(target, text) {
  if (target.textContent !== text) target.textContent = text;
}
