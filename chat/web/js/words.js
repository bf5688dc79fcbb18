// The texts of the pages in the language of the browser: 简体中文 or English.
import en from "./words.en.js";
import zh from "./words.zh.js";

const chinese = (navigator.languages ?? [navigator.language]).map((tag) => tag.toLowerCase().split("-")[0]).find((l) => l === "zh" || l === "en") === "zh";
const words = chinese ? zh : en;
export const language = chinese ? "zh-CN" : "en";

/** The text for a key, with values for its placeholders. A text with two forms is chosen by `values.n`. */
export function t(key, values = {}) {
  const found = words[key] ?? en[key];
  const text = Array.isArray(found) ? found[values.n === 1 ? 0 : 1] : found;
  return text.replace(/\{(\w+)\}/g, (_, name) => values[name] ?? "");
}

/** Writes the texts into a page: where it has `data-t`, `data-t-label`, `data-t-title` or `data-t-placeholder`. */
export function translate() {
  document.documentElement.lang = language;
  for (const [attribute, set] of [
    ["data-t", (target, text) => (target.textContent = text)],
    ["data-t-label", (target, text) => target.setAttribute("aria-label", text)],
    ["data-t-title", (target, text) => target.setAttribute("title", text)],
    ["data-t-placeholder", (target, text) => target.setAttribute("placeholder", text)],
  ])
    for (const target of document.querySelectorAll(`[${attribute}]`)) set(target, t(target.getAttribute(attribute)));
}

/** A duration as a text, in ms or in seconds. */
export function duration(ms) {
  return ms < 995 ? t("milliseconds", { n: Math.round(ms) }) : t("seconds", { n: (ms / 1000).toFixed(ms < 9950 ? 1 : 0) });
}

const clock = new Intl.DateTimeFormat(language, { hour: "2-digit", minute: "2-digit" });
const seconds = new Intl.DateTimeFormat(language, { hour: "2-digit", minute: "2-digit", second: "2-digit" });
export const time = (ms) => clock.format(ms);
export const timeWithSeconds = (ms) => seconds.format(ms);

/** The text that says why a session was not recovered. */
export function why(reason, within) {
  return t(`why-${reason}`, { within });
}
