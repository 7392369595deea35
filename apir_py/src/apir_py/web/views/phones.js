// Phones: where they are registered and what they do.

import { html, useMemo, useRef, useState } from "../vendor/htm-preact-standalone.module.js";
import { language, t } from "../language.js";
import { Badge, Data, Empty, Heading, matches, Person, Search, Since, Table } from "../parts.js";
import { find, list, useStore } from "../store.js";

const SLOW = 150; // ms

const GROUPS = {
  all: () => true,
  registered: ({ phone }) => phone.registered,
  offline: ({ phone }) => !phone.registered,
  busy: ({ phone }) => Boolean(phone.call),
};

export function Phones() {
  useStore("phones", "calls", "link");
  const [words, setWords] = useState("");
  const [group, setGroup] = useState("all");
  const table = useMemo(columns, [language]);
  const rows = useRows();
  const found = rows
    .filter(GROUPS[group])
    .filter(({ phone, other }) => !words || matches(words, ...texts(phone), other));
  return html`<${Heading} text=${t("view.phones")}>
      ${rows.length > 0 && html`<${Search} value=${words} onInput=${setWords} />`}
    </${Heading}>
    ${
      rows.length > 0 &&
      html`<fieldset class="choice">
      <legend class="hidden">${t("show")}</legend>
      ${Object.entries(GROUPS).map(
        ([name, belongs]) => html`<label key=${name}>
          <input type="radio" name="group" checked=${group === name} onChange=${() => setGroup(name)} />
          <span>${t(`phones.${name}`)} <span class="count">${rows.filter(belongs).length}</span></span>
        </label>`,
      )}
    </fieldset>`
    }
    ${
      found.length
        ? html`<${Table} columns=${table} items=${found} rowClass=${({ phone }) => (phone.registered ? "" : "away")} />`
        : html`<${Empty} topic="phones" text=${rows.length ? t("empty.search") : undefined} />`
    }`;
}

/** A row is a phone with the other party of its call; it stays the same object while neither has changed. */
function useRows() {
  const kept = useRef(new Map());
  const rows = list("phones").map((phone) => {
    const call = phone.call ? find("calls", phone.call) : undefined;
    const old = kept.current.get(phone.id);
    return old?.phone === phone && old.call === call ? old : { id: phone.id, phone, call, other: party(phone, call) };
  });
  kept.current = new Map(rows.map((row) => [row.id, row]));
  return rows;
}

function party({ id }, call) {
  if (!call) return null;
  if (call.caller?.number !== id) return call.caller;
  return call.answered_by ?? call.callee;
}

function texts(phone) {
  const { id, name, contacts, codec } = phone;
  return [
    id,
    name,
    codec,
    t(`state.${state(phone)}`),
    ...contacts.map(({ address, user_agent: agent }) => `${address} ${agent}`),
  ];
}

function columns() {
  return [
    { key: "phone", label: t("phone"), area: "a", cell: named },
    { key: "state", label: t("state"), area: "b", cell: ({ phone }) => html`<${Badge} state=${state(phone)} />` },
    {
      key: "since",
      label: t("since"),
      area: "d",
      numeric: true,
      cell: ({ phone }) => phone.since && html`<${Since} at=${phone.since} />`,
    },
    {
      key: "other",
      label: t("in.call.with"),
      area: "c",
      cell: ({ other }) => other && html`<${Person} who=${other} />`,
    },
    { key: "address", label: t("address"), cell: addresses },
    { key: "latency", label: t("latency"), numeric: true, cell: latencies },
    { key: "codec", label: t("codec"), cell: ({ phone }) => phone.codec && html`<${Data} text=${phone.codec} />` },
  ];
}

/** A phone that is registered and does not answer is something else than one that is not registered. */
function state({ state: value, registered }) {
  if (value !== "offline") return value;
  return registered ? "unreachable" : "unregistered";
}

function named({ phone }) {
  return html`<${Person} who=${{ number: phone.id, name: phone.name }} />
    ${phone.webrtc && html` <span class="tag" translate=${false}>WebRTC</span>`}`;
}

function addresses({ phone }) {
  if (!phone.contacts.length) return null;
  return phone.contacts.map(
    (contact) => html`<span class="line" key=${contact.address}>
      <${Data} kind="mono" text=${contact.address} />
      <span class="second">
        <${Data} text=${contact.transport?.toUpperCase()} />
        ${contact.user_agent && html` · <${Data} text=${contact.user_agent} />`}
      </span>
    </span>`,
  );
}

function latencies({ phone }) {
  const measured = phone.contacts.filter(({ latency_ms: latency }) => latency !== null && latency !== undefined);
  if (!measured.length) return null;
  return measured.map(
    ({ address, latency_ms: latency }) => html`<span class="line ${latency > SLOW ? "slow" : ""}" key=${address}>
      ${t(latency > SLOW ? "latency.slow" : "latency.value", { n: Math.round(latency) })}
    </span>`,
  );
}
