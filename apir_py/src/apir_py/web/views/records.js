// Call records: searched by number and date, a page at a time.

import { html, useEffect, useMemo, useRef, useState } from "../vendor/htm-preact-standalone.module.js";
import { duration } from "../clock.js";
import { request } from "../http.js";
import { has, language, t } from "../language.js";
import { Data, Heading, Moment, Person, shown, Table } from "../parts.js";
import { address } from "../route.js";

const SPACING = /[\s().\-/]/g;

/** `parameters` are those of the address: number, from, to (days of this browser's time zone) and page. */
export function Records({ parameters, onSessionEnd }) {
  const [answer, setAnswer] = useState(null);
  const [tries, setTries] = useState(0);
  const table = useMemo(columns, [language]);
  const page = Math.max(1, Number.parseInt(parameters.page, 10) || 1);
  const query = search(parameters);
  const to = (other) => address("records", { ...parameters, page: other });
  useEffect(() => {
    let current = true;
    setAnswer((old) => (old ? { ...old, busy: true } : null));
    request("GET", `records?${query}${query && "&"}page=${page}`).then((found) => {
      if (!current) return;
      if (found.status === 401) onSessionEnd();
      else setAnswer(found);
    });
    return () => (current = false);
  }, [query, page, tries]);
  return html`<${Heading} text=${t("view.records")} />
    <${Form} key=${query} parameters=${parameters} onAgain=${() => setTries(tries + 1)} />
    ${result(answer, table)}
    ${
      answer?.status === 200 &&
      html`<footer class="pages">
      <nav aria-label=${t("records.pages")}>
        ${page > 1 && html`<a class="button" href=${to(page - 1)}>${t("records.newer")}</a>`}
        <span aria-current="page">${t("records.page", { n: page })}</span>
        ${answer.data.more && html`<a class="button" href=${to(page + 1)}>${t("records.older")}</a>`}
      </nav>
      <a class="button" href=${`records.csv${query && `?${query}`}`} download="records.csv">${t("records.csv")}</a>
    </footer>`
    }`;
}

function result(answer, table) {
  if (!answer) return html`<p class="empty">${t("empty.loading")}</p>`;
  if (answer.status === 0) return html`<p class="error" role="alert">${t("login.unreachable")}</p>`;
  if (answer.status !== 200) {
    if (answer.status === 400) return html`<p class="error" role="alert">${t("records.wrong")}</p>`;
    const sentence = answer.data?.error;
    return html`<p class="error" role="alert">
      ${t("records.failed")} ${sentence && html`(<${Data} text=${sentence} longest=${300} />)`}
    </p>`;
  }
  if (!answer.data.records.length) return html`<p class="empty">${t("empty.records")}</p>`;
  return html`<div class=${answer.busy ? "busy" : ""} aria-busy=${String(Boolean(answer.busy))}>
    <${Table} columns=${table} items=${answer.data.records} />
  </div>`;
}

function Form({ parameters, onAgain }) {
  const form = useRef();
  function submit(event) {
    event.preventDefault();
    const wanted = address("records", Object.fromEntries(new FormData(form.current)));
    if (wanted === location.hash) onAgain();
    else location.hash = wanted;
  }
  // defaultValue: with value, each later rendering (a lost connection is enough) would erase what is being typed.
  return html`<form class="filters" role="search" onSubmit=${submit} ref=${form}>
    <label><span>${t("records.number")}</span>
      <input name="number" inputmode="tel" autocomplete="off" maxlength="80" defaultValue=${parameters.number ?? ""} />
    </label>
    <label><span>${t("records.from")}</span><input name="from" type="date" defaultValue=${parameters.from ?? ""} /></label>
    <label><span>${t("records.to")}</span><input name="to" type="date" defaultValue=${parameters.to ?? ""} /></label>
    <button type="submit" class="primary">${t("records.search")}</button>
    ${search(parameters) && html`<a class="button" href=${address("records")}>${t("records.clear")}</a>`}
  </form>`;
}

/** The filters as the service takes them: moments in UTC, the last one included; a number without its spacing. */
function search({ number, from, to }) {
  const filters = { number: number?.replace(SPACING, ""), from: midnight(from), to: midnight(to, 1, -1) };
  return String(new URLSearchParams(Object.entries(filters).filter(([, value]) => value)));
}

function midnight(day, daysLater = 0, milliseconds = 0) {
  if (!/^\d{4}-\d\d-\d\d$/.test(day ?? "")) return "";
  const [year, month, date] = day.split("-").map(Number);
  return new Date(year, month - 1, date + daysLater, 0, 0, 0, milliseconds).toISOString();
}

function columns() {
  return [
    { key: "at", label: t("records.at"), area: "b", cell: ({ at }) => html`<${Moment} at=${at} always=${true} />` },
    { key: "caller", label: t("caller"), area: "a", cell: ({ caller }) => html`<${Person} who=${caller} />` },
    { key: "callee", label: t("callee"), area: "c", cell: ({ callee }) => html`<${Person} who=${callee} />` },
    { key: "queue", label: t("queue"), cell: ({ queue }) => queue && html`<${Data} text=${queue} />` },
    { key: "result", label: t("records.result"), area: "d", cell: disposition },
    {
      key: "talk",
      label: t("answered.since"),
      numeric: true,
      cell: (record) => html`<span>${duration(record.talk_seconds)}</span>`,
    },
    {
      key: "time",
      label: t("duration"),
      numeric: true,
      cell: ({ seconds }) => html`<span>${duration(seconds)}</span>`,
    },
  ];
}

function disposition({ disposition: value }) {
  const key = `disposition.${value}`;
  const kind = value === "ANSWERED" ? "talking" : "offline";
  return html`<span class="badge is-${kind}">${has(key) ? t(key) : shown(value)}</span>`;
}
