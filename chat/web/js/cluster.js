// The cluster's page. Once a second it asks some node how all nodes are. It uses plain HTTP and has no session, so it
// does not count as a person.
import { nodeColour } from "./colours.js";
import { $, element, svg, write } from "./dom.js";
import { duration, t, timeWithSeconds, translate, why } from "./words.js";

const EVERY = 1000; // milliseconds
const KEPT = 120; // how many samples the chart shows

const rates = [];
translate();
document.title = t("cluster-title");

async function look() {
  let found = null;
  try {
    const answer = await fetch("/cluster.json", { cache: "no-store", signal: AbortSignal.timeout(3000) });
    if (answer.ok) found = await answer.json();
  } catch {
    // The notice below says so.
  }
  const problem = found === null ? t("no-cluster") : found.redis ? "" : t("redis-down");
  write($("notice"), problem);
  $("notice").hidden = !problem;
  if (found) show(found);
}

function show(cluster) {
  const up = cluster.nodes.filter((node) => node.state === "up");
  const rate = cluster.nodes.reduce((sum, node) => sum + node.rate, 0);
  rates.push(rate);
  if (rates.length > KEPT) rates.shift();
  write($("asked"), t("asked", { node: cluster.asked }));
  totals(cluster, up, rate);
  nodes(cluster);
  chart();
  outcomes(cluster.outcomes);
  news(cluster.news);
}

function totals(cluster, up, rate) {
  const lag = Math.max(0, ...up.map((node) => node.lag));
  const shown = [
    [`${up.length}/${cluster.nodes.length}`, "total-up", up.length < cluster.nodes.length],
    [cluster.here, "total-here"],
    [cluster.reconnecting, "total-reconnecting", cluster.reconnecting > 0],
    [rate.toFixed(rate < 10 ? 1 : 0), "total-rate"],
    [duration(lag), "total-lag"],
    [cluster.outcomes.recovered ?? 0, "total-recovered"],
  ];
  $("totals").replaceChildren(
    ...shown.map(([value, name, warn]) => element("p", { class: warn ? "warn" : undefined, data: { total: name } }, element("b", {}, String(value)), t(name))),
  );
}

function nodes(cluster) {
  const focused = document.activeElement?.dataset?.kill;
  $("nodes").replaceChildren(
    ...cluster.nodes.map((node) => {
      const down = node.state === "down" || node.state === "stopped";
      const facts = [
        ["clients", node.clients],
        ["rate", node.rate.toFixed(1)],
        ["lag", down ? "–" : duration(node.lag)],
        down ? ["silent-for", long(node.silent)] : ["uptime", long(node.up)],
      ];
      return element(
        "li",
        { class: node.state, data: { node: nodeColour(node.name), name: node.name } },
        element(
          "p",
          { class: "top" },
          node.name,
          element("span", { class: "state" }, t(`node-${node.state}`)),
          cluster.demo && element("button", { type: "button", class: "danger", disabled: down, "aria-label": t("kill-node", { node: node.name }), data: { kill: node.name }, on: { click: () => kill(node.name) } }, t("kill-short")),
        ),
        element("div", { class: "dots", "aria-hidden": "true" }, ...Array.from({ length: Math.min(node.clients, 100) }, () => element("i"))),
        element("dl", {}, ...facts.map(([name, value]) => element("div", {}, element("dt", {}, t(name)), element("dd", {}, String(value))))),
      );
    }),
  );
  if (focused) document.querySelector(`[data-kill="${CSS.escape(focused)}"]`)?.focus();
}

async function kill(name) {
  await fetch("/cluster/kill", { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ node: name }) });
}

function long(ms) {
  const minutes = Math.floor(ms / 60_000);
  if (minutes < 1) return duration(Math.floor(ms / 1000) * 1000);
  return minutes < 60 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

function chart() {
  const most = Math.max(4, ...rates);
  const bars = rates.map((rate, i) => svg("rect", { x: i + KEPT - rates.length + 0.1, y: 100 - (rate / most) * 92, width: 0.8, height: (rate / most) * 92 }));
  $("chart").setAttribute("viewBox", `0 0 ${KEPT} 100`);
  $("chart").replaceChildren(...bars);
}

function outcomes(counts) {
  const most = Math.max(1, ...Object.values(counts));
  const name = (outcome) => (outcome === "recovered" || outcome === "new" ? t(`outcome-${outcome}`) : `${t("outcome-fresh")}: ${outcome}`);
  const order = (outcome) => (outcome === "recovered" ? 0 : outcome === "new" ? 1 : 2);
  $("outcomes").replaceChildren(
    ...Object.entries(counts)
      .sort(([a], [b]) => order(a) - order(b) || a.localeCompare(b))
      .map(([outcome, times]) =>
        element(
          "li",
          { class: outcome, title: order(outcome) === 2 ? why(outcome, "") : undefined },
          element("span", {}, name(outcome)),
          svg("svg", { viewBox: "0 0 100 10", preserveAspectRatio: "none", "aria-hidden": "true" }, svg("rect", { width: (100 * times) / most, height: 10, rx: 2 })),
          element("b", {}, String(times)),
        ),
      ),
  );
}

function news(lines) {
  const text = (line) =>
    line.outcome !== "recovered"
      ? t("news-fresh", { ...line, why: why(line.outcome, "") })
      : line.from && line.from !== line.to
        ? t("news-recovered", line)
        : t("news-same", line);
  $("news").replaceChildren(
    ...lines.slice(0, 12).map((line) => element("li", { class: line.outcome === "recovered" ? "recovered" : "fresh" }, element("time", {}, timeWithSeconds(line.at)), element("span", {}, text(line)))),
  );
  if (!lines.length) $("news").append(element("li", {}, t("no-news")));
}

for (;;) {
  if (!document.hidden) await look();
  await new Promise((resolve) => setTimeout(resolve, EVERY));
}
