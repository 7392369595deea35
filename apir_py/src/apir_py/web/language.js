// Texts of the page in the language that is in use.

import en from "./locale/en.js";
import es from "./locale/es.js";

const TEXTS = { es, en };
const KEY = "labredes.language";

/** Language codes with their own names. */
export const LANGUAGES = { es: "Español", en: "English" };
export let language = "es";

/** Use a language; `keep` remembers it in this browser. An unknown one changes nothing. */
export function setLanguage(code, keep = false) {
  if (!Object.hasOwn(TEXTS, code)) return;
  language = code;
  document.documentElement.lang = code;
  if (keep) attempt(() => localStorage.setItem(KEY, code));
}

/** The language that was chosen in this browser, if any. */
export function keptLanguage() {
  return attempt(() => localStorage.getItem(KEY));
}

/** A text with its {values}; one with two forms takes the first for n = 1. */
export function t(key, values = {}) {
  const found = TEXTS[language][key];
  if (found === undefined) throw new Error(`no text ${key}`);
  const text = Array.isArray(found) ? found[values.n === 1 ? 0 : 1] : found;
  return text.replace(/\{(\w+)\}/g, (_, name) => values[name]);
}

/** Whether there is a text of this key. */
export function has(key) {
  return Object.hasOwn(TEXTS[language], key);
}

const DAY = { day: "2-digit", month: "2-digit", year: "numeric" };
const TIME = { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" };

/** A moment: the time, and the day before it if it is not today or `always`. */
export function moment(value, always = false) {
  const date = new Date(value);
  if (Number.isNaN(date.getTime())) return "";
  const today = !always && date.toDateString() === new Date().toDateString();
  return (today ? [TIME] : [DAY, TIME]).map((form) => new Intl.DateTimeFormat(language, form).format(date)).join(" ");
}

// Storage may be forbidden in a browser; the page works without it.
function attempt(action) {
  try {
    return action();
  } catch {
    return null;
  }
}

setLanguage(keptLanguage() ?? navigator.language.slice(0, 2));
