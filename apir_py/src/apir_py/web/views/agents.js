// Agents: who is logged in, and whom they talk to.

import { html, useMemo } from "../vendor/htm-preact-standalone.module.js";
import { language, t } from "../language.js";
import { Badge, Data, Empty, Heading, Person, Since, Table } from "../parts.js";
import { list, useStore } from "../store.js";

export function Agents() {
  useStore("agents", "link");
  const table = useMemo(columns, [language]);
  const agents = list("agents");
  return html`<${Heading} text=${t("view.agents")} />
    ${
      agents.length
        ? html`<${Table} columns=${table} items=${agents} rowClass=${rowClass} />`
        : html`<${Empty} topic="agents" />`
    }`;
}

function rowClass({ state }) {
  return state === "logged_off" ? "away" : "";
}

function columns() {
  return [
    {
      key: "agent",
      label: t("agent"),
      area: "a",
      cell: ({ id, name }) => html`<${Person} who=${{ number: id, name }} />`,
    },
    { key: "state", label: t("state"), area: "b", cell: ({ state }) => html`<${Badge} state=${state} />` },
    {
      key: "since",
      label: t("since"),
      area: "d",
      numeric: true,
      cell: ({ since }) => since && html`<${Since} at=${since} />`,
    },
    {
      key: "other",
      label: t("talks.with"),
      area: "c",
      cell: ({ caller }) => caller && html`<${Person} who=${caller} />`,
    },
    { key: "queues", label: t("view.queues"), cell: queues },
  ];
}

function queues({ queues: ids }) {
  return ids.length > 0 && ids.map((id) => html`<span class="tag" key=${id}><${Data} text=${id} /></span> `);
}
