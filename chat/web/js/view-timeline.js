// The session over time, as on a map of a metro: a line for each node, and the client travels along them. A lost
// connection is a gap in its way; what was said meanwhile lies there as dots, and is picked up on recovery.
import { nodeColour, shortNode } from "./colours.js";
import { $, svg } from "./dom.js";
import { duration, t } from "./words.js";

const SPEED = 9; // pixels per second
const LEAST = { here: 34, lost: 66, left: 46 }; // pixels; a second is too short to see
const LEFT = 30;
const RIGHT = 26;
const KEPT = 40;

const box = $("timeline");
const canvas = box.firstElementChild;
let nodes = [];
let spans = []; // {kind: "here" | "lost" | "left", node, from, to, marks: [{at, caught, mine}], outcome, caughtUp}
let counts = { lost: 0, recovered: 0 };

export function know(names) {
  nodes = [...new Set([...nodes, ...names])].sort().slice(0, 6);
}

/** The client is on a node. @param outcome "first", "recovered" or "fresh" */
export function arrive(node, outcome, caughtUp) {
  close();
  if (outcome === "recovered") counts.recovered++;
  spans.push({ kind: "here", node, from: Date.now(), to: null, marks: [], outcome, caughtUp });
  draw();
}

/** It is not. @param kind "lost" or "left" */
export function depart(kind) {
  const node = spans.at(-1)?.node;
  if (!node || spans.at(-1).kind !== "here") return;
  close();
  if (kind === "lost") counts.lost++;
  spans.push({ kind, node, from: Date.now(), to: null, marks: [] });
  draw();
}

function close() {
  if (spans.length) spans.at(-1).to ??= Date.now();
  spans = spans.slice(-KEPT);
}

/** A message. One that was caught up lies where it was said, in the gap. */
export function message(at, { caught = false, mine = false } = {}) {
  let span = spans.at(-1);
  if (caught) span = [...spans].reverse().find((s) => s.kind !== "here") ?? span;
  if (!span) return;
  const end = span.to ?? Date.now();
  span.marks.push({ at: Math.min(Math.max(at, span.from), end), caught, mine });
  if (span.marks.length > 200) span.marks.shift();
}

export function draw() {
  const width = box.clientWidth;
  const height = box.clientHeight;
  if (!width || !nodes.length) return;
  const lane = (node) => {
    const at = Math.max(0, nodes.indexOf(node));
    return nodes.length === 1 ? height / 2 : 22 + (at * (height - 46)) / (nodes.length - 1);
  };
  const now = Date.now();
  canvas.setAttribute("viewBox", `0 0 ${width} ${height}`);
  canvas.setAttribute("aria-label", t("timeline-label", { node: spans.at(-1)?.node ?? "–", ...counts }));
  const parts = nodes.map((node) =>
    svg(
      "g",
      { "data-node": nodeColour(node), class: spans.at(-1)?.node === node && spans.at(-1).kind === "here" ? "lane now" : "lane" },
      svg("line", { x1: LEFT, x2: width, y1: lane(node), y2: lane(node) }),
      svg("text", { x: 10, y: lane(node) + 4 }, shortNode(node).slice(-2)),
    ),
  );
  const over = []; // drawn last
  let right = width - RIGHT;
  for (let i = spans.length - 1; i >= 0 && right > LEFT; i--) {
    const span = spans[i];
    const to = span.to ?? now;
    const left = right - Math.max(LEAST[span.kind], ((to - span.from) / 1000) * SPEED);
    const next = spans[i + 1]?.node ?? span.node;
    const x = (at) => left + ((at - span.from) / Math.max(1, to - span.from)) * (right - left);
    const y = (at) => curve(lane(span.node), lane(next), (x(at) - left) / (right - left));
    if (span.kind === "here") {
      parts.push(svg("line", { class: "here", "data-node": nodeColour(span.node), x1: Math.max(left, LEFT), x2: right, y1: lane(span.node), y2: lane(span.node) }));
    } else {
      const points = Array.from({ length: 17 }, (_, k) => `${left + ((right - left) * k) / 16},${curve(lane(span.node), lane(next), k / 16)}`);
      parts.push(svg("polyline", { class: span.kind, points: points.join(" ") }));
      const middle = (left + right) / 2;
      const top = Math.min(lane(span.node), lane(next));
      if (span.kind === "lost" && middle > LEFT + 20) over.push(svg("text", { class: "took", x: middle, y: top > 28 ? top - 9 : Math.max(lane(span.node), lane(next)) + 17 }, duration(to - span.from)));
      if (left > LEFT) over.push(svg("path", { class: "cross", d: `M${left - 4} ${lane(span.node) - 4}l8 8m0-8l-8 8` }));
    }
    for (const mark of span.marks) {
      if (x(mark.at) < LEFT) continue;
      over.push(svg("circle", { class: `mark${mark.caught ? " caught" : ""}${mark.mine ? " mine" : ""}`, cx: x(mark.at), cy: span.kind === "here" ? lane(span.node) : y(mark.at), r: mark.caught ? 4.5 : 3 }));
    }
    if (span.kind === "here" && left > LEFT && span.outcome !== "first") over.push(station(span, left, lane(span.node)));
    right = left;
  }
  const last = spans.at(-1);
  if (last) over.push(svg("circle", { class: `head ${last.kind}`, "data-node": nodeColour(last.node), cx: width - RIGHT, cy: lane(last.node), r: 7 }));
  canvas.replaceChildren(...parts, ...over);
}

function station(span, x, y) {
  const recovered = span.outcome === "recovered";
  return svg(
    "g",
    { class: recovered ? "station" : "station fresh" },
    svg("circle", { cx: x, cy: y, r: 9 }),
    recovered ? svg("path", { d: `M${x - 4} ${y}l3 3.2l5.4-6` }) : svg("path", { d: `M${x} ${y - 4}v8m-4-4h8` }),
    recovered && span.caughtUp ? svg("text", { x: x + 13, y: y - 8 }, `+${span.caughtUp}`) : null,
  );
}

/** From one height to another, level at both ends. */
const curve = (from, to, at) => from + (to - from) * at * at * (3 - 2 * at);

const calm = matchMedia("(prefers-reduced-motion: reduce)");
let drawnAt = 0;
function tick(at) {
  if (at - drawnAt > (calm.matches ? 1000 : 100)) {
    drawnAt = at;
    draw();
  }
  requestAnimationFrame(tick); // not while the page is hidden
}
requestAnimationFrame(tick);
new ResizeObserver(draw).observe(box);
