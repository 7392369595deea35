// What is said beside the views: the banner of the connection, the announcements, the title and the language.

import { html, useEffect, useLayoutEffect, useRef } from "./vendor/htm-preact-standalone.module.js";
import { duration } from "./clock.js";
import { language, LANGUAGES, moment, t } from "./language.js";
import { Data, Icon, shown } from "./parts.js";
import { dismiss, known, link, list, listen, live, useStore } from "./store.js";

const NOTICE_FOR = 15_000; // ms
const GATHER = 1500; // ms in which new waiting callers share an announcement

/** Says when a connection is gone, since when, and that it is back. It is always there, so that it is read aloud. */
export function Banner({ onRetry }) {
  useStore("link");
  const { notice } = link;
  useEffect(() => {
    if (!notice) return undefined;
    const timer = setTimeout(dismiss, NOTICE_FOR);
    return () => clearTimeout(timer);
  }, [notice]);
  return html`<div class="banner" role="status" id="banner">${content(notice, onRetry)}</div>`;
}

function content(notice, onRetry) {
  if (link.service === "lost") {
    return html`<p class="bad">
      <${Icon} name="alert" />
      <span>
        <strong>${t("banner.service", { time: moment(link.serviceSince) })}</strong>${" "}
        ${t(link.missed ? "banner.slow" : "banner.retrying")}
      </span>
      <button type="button" onClick=${onRetry}>${t("banner.retry")}</button>
    </p>`;
  }
  if (link.exchange === "lost") {
    return html`<p class="bad">
      <${Icon} name="alert" />
      <span>
        <strong>${t("banner.exchange", { time: moment(link.exchangeSince) })}</strong>${" "}
        ${link.reason && html`(<${Data} text=${link.reason} longest=${300} />)`}
      </span>
    </p>`;
  }
  if (!notice) return null;
  const values = { time: moment(notice.at), duration: duration(notice.seconds) };
  return html`<p class="good">
    <${Icon} name="back" />
    <span>
      <strong>${t(`banner.${notice.what}.back`, values)}</strong> ${notice.missed && t("banner.missed")}
    </span>
    <button type="button" onClick=${dismiss}>${t("banner.dismiss")}</button>
  </p>`;
}

/** Reads new waiting callers aloud, several at once, and never the passing of time. */
export function Announcer() {
  const element = useRef();
  useLayoutEffect(() => {
    let heard = null;
    let timer = null;
    const fresh = [];
    const end = listen(["queues"], () => {
      if (!live() || !known("queues")) return;
      const waiting = new Map(
        list("queues").flatMap((queue) =>
          queue.waiting.map((caller) => [`${queue.id} ${caller.number} ${caller.since}`, { queue, caller }]),
        ),
      );
      if (heard) for (const [key, entry] of waiting) if (!heard.has(key)) fresh.push(entry);
      heard = new Set(waiting.keys());
      if (!fresh.length || timer) return;
      timer = setTimeout(() => {
        timer = null;
        const said = fresh.splice(0);
        element.current.textContent =
          said.length > 2
            ? t("announce.many", { n: said.length })
            : said.map(({ queue, caller }) => announcement(queue, caller)).join(" ");
      }, GATHER);
    });
    return () => {
      end();
      clearTimeout(timer);
    };
  }, []);
  return html`<p class="hidden" role="log" aria-live="polite" aria-relevant="additions text" ref=${element} />`;
}

function announcement(queue, caller) {
  const who = caller.name || caller.number ? `${caller.name} ${caller.number}` : t("anonymous");
  return t("announce.waiting", { who: shown(who), queue: shown(queue.name || queue.id) });
}

/** Callers that wait, in all queues, and the longest wait's begin. */
export function waiting() {
  const queues = list("queues");
  const begins = queues
    .map((queue) => queue.longest_wait_since)
    .filter(Boolean)
    .sort();
  return { number: queues.reduce((sum, queue) => sum + queue.waiting.length, 0), since: begins[0] ?? null };
}

/** Keeps the document's title: what is wrong, who waits, the view. */
export function Title({ view }) {
  useStore("link", "queues", "calls");
  useEffect(() => {
    const { number } = waiting();
    const parts = [t(`view.${view}`), "labredes.pbx"];
    if (number) parts.unshift(t("title.waiting", { n: number }));
    if (link.service === "lost" || link.exchange === "lost") parts.unshift(t("title.lost"));
    document.title = parts.join(" · ");
  });
  return null;
}

/** Chooses the language. */
export function LanguageSwitch({ onLanguage }) {
  return html`<div class="languages" role="group" aria-label=${t("language")}>
    ${Object.entries(LANGUAGES).map(
      ([code, name]) =>
        html`<button type="button" key=${code} lang=${code} translate=${false} aria-pressed=${String(code === language)}
          title=${name} onClick=${() => onLanguage(code)}>
          ${code.toUpperCase()}<span class="hidden"> ${name}</span>
        </button>`,
    )}
  </div>`;
}
