// Draws the session over time like a map of a metro. Each node is a line, and the client travels along the lines. Where
// the connection was lost, its way has a gap. The messages that were sent meanwhile are dots in the gap.
import { nodeColour, shortNode } from "./colours.js";
import { $, svg } from "./dom.js";
import { duration, t } from "./words.js";

const SPEED = 9; // pixels per second
const LEAST = { here: 34, lost: 66, left: 46 }; // the least width of a span in pixels; a second is too short to see
const LEFT = 30; // the margins, in pixels
const RIGHT = 26;
const KEPT = 40; // how many spans are kept

const box = $("timeline");
const canvas = box.firstElementChild;
let nodes = [];
let spans = []; // {kind: "here" | "lost" | "left", node, from, to, marks: [{at, caught, mine}], outcome, caughtUp}
let counts = { lost: 0, recovered: 0 };

/** Adds lines for nodes that are new. */
export function know(names) {
  nodes = [...new Set([...nodes, ...names])].sort().slice(0, 6);
}

/** Notes that the client is on a node now. @param outcome "first", "recovered" or "fresh" */
export function arrive(node, outcome, caughtUp) {
  close();
  if (outcome === "recovered") counts.recovered++;
  spans.push({ kind: "here", node, from: Date.now(), to: null, marks: [], outcome, caughtUp });
  draw();
}

/** Notes that the client is on no node now. @param kind "lost" or "left" */
export function depart(kind) {
  const node = spans.at(-1)?.node;
  if (!node || spans.at(-1).kind !== "here") return;
  close();
  if (kind === "lost") counts.lost++;
  spans.push({ kind, node, from: Date.now(), to: null, marks: [] });
  draw();
}

/** Ends the current span, and removes the oldest ones. */
function close() {
  if (spans.length) spans.at(-1).to ??= Date.now();
  spans = spans.slice(-KEPT);
}

/** Notes a message. One that the client missed at first is drawn in the gap, at the time when it was sent. */
export function message(at, { caught = false, mine = false } = {}) {
  let span = spans.at(-1);
  if (caught) span = [...spans].reverse().find((s) => s.kind !== "here") ?? span;
  if (!span) return;
  const end = span.to ?? Date.now();
  span.marks.push({ at: Math.min(Math.max(at, span.from), end), caught, mine });
  if (span.marks.length > 200) span.marks.shift();
}

/** Draws everything anew. */
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
  const over = []; // what is drawn last, above everything else
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

/** The mark at the place where the client came to a node. */
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

/** The height of a curve that is level at both ends; `at` runs from 0 to 1. */
const curve = (from, to, at) => from + (to - from) * at * at * (3 - 2 * at);

const calm = matchMedia("(prefers-reduced-motion: reduce)");
let drawnAt = 0;
function tick(at) {
  if (at - drawnAt > (calm.matches ? 1000 : 100)) {
    drawnAt = at;
    draw();
  }
  requestAnimationFrame(tick); // the browser calls it only while the page is visible
}
requestAnimationFrame(tick);
new ResizeObserver(draw).observe(box);
