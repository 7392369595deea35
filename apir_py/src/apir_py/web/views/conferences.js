// Conferences with the people in them.

import { html, useMemo } from "../vendor/htm-preact-standalone.module.js";
import { language, t } from "../language.js";
import { Badge, Data, Empty, Heading, Person, Since, Table } from "../parts.js";
import { list, useStore } from "../store.js";

export function Conferences() {
  useStore("conferences", "link");
  const table = useMemo(columns, [language]);
  const conferences = list("conferences");
  return html`<${Heading} text=${t("view.conferences")} />
    ${
      conferences.length
        ? html`<div class="queues">
          ${conferences.map((conference) => html`<${Conference} key=${conference.id} ...${{ conference, table }} />`)}
        </div>`
        : html`<${Empty} topic="conferences" />`
    }`;
}

function Conference({ conference: { id, since, participants }, table }) {
  const heading = `conference-${id}`;
  return html`<section class="queue" aria-labelledby=${heading}>
    <header>
      <h2 id=${heading}>${t("conference")} <${Data} kind="number" text=${id} /></h2>
      <p class="aside">
        ${t("conference.people", { n: participants.length })}${since && html` · <${Since} at=${since} />`}
      </p>
    </header>
    ${
      participants.length
        ? html`<${Table} columns=${table} items=${withIds(participants)} labelled=${heading} />`
        : html`<p class="empty">${t("empty.participants")}</p>`
    }
  </section>`;
}

function withIds(participants) {
  return participants.map((participant) => ({ ...participant, id: `${participant.number} ${participant.since}` }));
}

function columns() {
  return [
    { key: "participant", label: t("participant"), area: "a", cell: (who) => html`<${Person} who=${who} />` },
    { key: "state", label: t("microphone"), area: "b", cell: microphone },
    {
      key: "since",
      label: t("duration"),
      area: "d",
      numeric: true,
      cell: ({ since }) => html`<${Since} at=${since} />`,
    },
  ];
}

function microphone({ muted, talking }) {
  return html`<${Badge} state=${muted ? "muted" : talking ? "speaking" : "silent"} />`;
}
