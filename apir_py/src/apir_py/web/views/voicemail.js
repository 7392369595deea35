// Mailboxes with their numbers of messages.

import { html, useMemo } from "../vendor/htm-preact-standalone.module.js";
import { language, t } from "../language.js";
import { Empty, Heading, Person, Table } from "../parts.js";
import { list, useStore } from "../store.js";

export function Voicemail() {
  useStore("voicemail", "link");
  const table = useMemo(columns, [language]);
  const mailboxes = list("voicemail");
  return html`<${Heading} text=${t("view.voicemail")} />
    ${
      mailboxes.length ? html`<${Table} columns=${table} items=${mailboxes} />` : html`<${Empty} topic="voicemail" />`
    }`;
}

function columns() {
  return [
    {
      key: "mailbox",
      label: t("mailbox"),
      area: "a",
      cell: ({ id, name }) => html`<${Person} who=${{ number: id, name }} />`,
    },
    { key: "new", label: t("voicemail.new"), numeric: true, cell: fresh },
    { key: "old", label: t("voicemail.old"), numeric: true, cell: ({ old }) => html`<span>${old ?? "–"}</span>` },
  ];
}

function fresh({ new: count }) {
  return html`<span class=${count ? "fresh" : ""}>${count ?? "–"}</span>`;
}
