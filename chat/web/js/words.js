// The page's words, in the browser's language: 简体中文 or English.
import en from "./words.en.js";
import zh from "./words.zh.js";

const chinese = (navigator.languages ?? [navigator.language]).map((tag) => tag.toLowerCase().split("-")[0]).find((l) => l === "zh" || l === "en") === "zh";
const words = chinese ? zh : en;
export const language = chinese ? "zh-CN" : "en";

export function t(key, values = {}) {
  const found = words[key] ?? en[key];
  const text = Array.isArray(found) ? found[values.n === 1 ? 0 : 1] : found;
  return text.replace(/\{(\w+)\}/g, (_, name) => values[name] ?? "");
}

/** Fills in the words of a page: `data-t`, `data-t-label`, `data-t-title`, `data-t-placeholder`. */
export function translate() {
  document.documentElement.lang = language;
  for (const [attribute, set] of [
    ["data-t", (node, text) => (node.textContent = text)],
    ["data-t-label", (node, text) => node.setAttribute("aria-label", text)],
    ["data-t-title", (node, text) => node.setAttribute("title", text)],
    ["data-t-placeholder", (node, text) => node.setAttribute("placeholder", text)],
  ])
    for (const node of document.querySelectorAll(`[${attribute}]`)) set(node, t(node.getAttribute(attribute)));
}

export function duration(ms) {
  return ms < 995 ? t("milliseconds", { n: Math.round(ms) }) : t("seconds", { n: (ms / 1000).toFixed(ms < 9950 ? 1 : 0) });
}

const clock = new Intl.DateTimeFormat(language, { hour: "2-digit", minute: "2-digit" });
const seconds = new Intl.DateTimeFormat(language, { hour: "2-digit", minute: "2-digit", second: "2-digit" });
export const time = (ms) => clock.format(ms);
export const timeWithSeconds = (ms) => seconds.format(ms);

/** Why a session is a new one, for a reader. */
export function why(reason, within) {
  return t(`why-${reason}`, { within });
}
