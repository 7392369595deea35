// Calls in progress, under the numbers that an operator looks at first.

import { html, useMemo, useState } from "../vendor/htm-preact-standalone.module.js";
import { language, t } from "../language.js";
import { waiting } from "../notices.js";
import { Badge, Data, Empty, Heading, matches, Person, Search, Since, Table, useOverdue } from "../parts.js";
import { find, list, useStore } from "../store.js";

export function Calls() {
  useStore("calls", "link");
  const [words, setWords] = useState("");
  const table = useMemo(columns, [language]);
  const calls = list("calls");
  const found = words ? calls.filter((call) => matches(words, ...texts(call))) : calls;
  return html`<${Heading} text=${t("view.calls")}>
      ${calls.length > 0 && html`<${Search} value=${words} onInput=${setWords} />`}
    </${Heading}>
    <${Figures} />
    ${
      found.length
        ? html`<${Table} columns=${table} items=${found} />`
        : html`<${Empty} topic="calls" text=${calls.length ? t("empty.search") : undefined} />`
    }`;
}

function texts({ caller, callee, answered_by: answeredBy, queue, conference, state }) {
  return [caller, callee, answeredBy, queue, conference, t(`state.${state}`)];
}

function columns() {
  return [
    { key: "caller", label: t("caller"), area: "a", cell: ({ caller }) => html`<${Person} who=${caller} />` },
    { key: "callee", label: t("callee"), area: "c", cell: callee },
    { key: "place", label: t("place"), cell: place },
    { key: "state", label: t("state"), area: "d", cell: ({ state }) => html`<${Badge} state=${state} />` },
    {
      key: "talk",
      label: t("answered.since"),
      numeric: true,
      cell: ({ answered }) => answered && html`<${Since} at=${answered} />`,
    },
    {
      key: "time",
      label: t("duration"),
      area: "b",
      numeric: true,
      cell: ({ began }) => html`<${Since} at=${began} />`,
    },
  ];
}

function callee({ callee: called, answered_by: answeredBy }) {
  const other = answeredBy && answeredBy.number !== called?.number;
  return html`<${Person} who=${called} />
    ${other && html`<span class="second">${t("answered.by")} <${Person} who=${answeredBy} /></span>`}`;
}

function place({ queue, conference }) {
  if (queue) return html`<a href="#/queues">${t("queue")} <${Data} text=${find("queues", queue)?.name || queue} /></a>`;
  if (conference) return html`<a href="#/conferences">${t("conference")} <${Data} text=${conference} /></a>`;
  return null;
}

function Figures() {
  useStore("calls", "queues", "phones");
  const { number, since } = waiting();
  const late = useOverdue(since);
  const queues = list("queues");
  const phones = list("phones");
  const registered = phones.filter((phone) => phone.registered);
  const sum = (field) => queues.reduce((total, queue) => total + queue[field], 0);
  return html`<dl class="figures" aria-label=${t("figures")}>
    <${Figure} name=${t("figure.calls")} value=${list("calls").length} />
    <${Figure} name=${t("figure.waiting")} value=${number} late=${late} warn=${number > 0} />
    <${Figure} name=${t("figure.longest")} value=${html`<${Since} at=${since} />`} late=${late} />
    <${Figure} name=${t("figure.answered")} value=${sum("answered")} />
    <${Figure} name=${t("figure.abandoned")} value=${sum("abandoned")} />
    <${Figure} name=${t("figure.phones")} value=${`${registered.length}/${phones.length}`} />
  </dl>`;
}

function Figure({ name, value, late, warn }) {
  return html`<div class="figure ${late ? "late" : warn ? "warn" : ""}"><dt>${name}</dt><dd>${value}</dd></div>`;
}
