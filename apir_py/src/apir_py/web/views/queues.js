// Queues: who waits and for how long, and what the members do.

import { html, useMemo } from "../vendor/htm-preact-standalone.module.js";
import { language, t } from "../language.js";
import { Badge, Data, Empty, Heading, Icon, Moment, Person, Since, Table, useOverdue } from "../parts.js";
import { list, useStore } from "../store.js";

export function Queues() {
  useStore("queues", "link");
  const columns = useMemo(memberColumns, [language]);
  const queues = list("queues");
  return html`<${Heading} text=${t("view.queues")} />
    ${
      queues.length
        ? html`<div class="queues">
          ${queues.map((queue) => html`<${Queue} key=${queue.id} queue=${queue} columns=${columns} />`)}
        </div>`
        : html`<${Empty} topic="queues" />`
    }`;
}

function Queue({ queue, columns }) {
  const late = useOverdue(queue.longest_wait_since);
  const heading = `queue-${queue.id}`;
  return html`<section class="queue ${late ? "late" : ""}" aria-labelledby=${heading}>
    <header>
      <h2 id=${heading}>
        <${Data} kind="name" text=${queue.name || queue.id} />${" "}<${Data} kind="number" text=${queue.number} />
      </h2>
      ${late && html`<p class="alarm"><${Icon} name="alert" /> ${t("queue.late")}</p>`}
    </header>
    <dl class="figures">
      <div class="figure main"><dt>${t("figure.waiting")}</dt><dd>${queue.waiting.length}</dd></div>
      <div class="figure main"><dt>${t("figure.longest")}</dt><dd><${Since} at=${queue.longest_wait_since} /></dd></div>
      <div class="figure"><dt>${t("figure.answered")}</dt><dd>${queue.answered}</dd></div>
      <div class="figure"><dt>${t("figure.abandoned")}</dt><dd>${queue.abandoned}</dd></div>
    </dl>
    <div class="part callers">
      <h3>${t("queue.waiting")}</h3>
      ${
        queue.waiting.length
          ? html`<ol class="waiting">
            ${queue.waiting.map(
              (caller) => html`<${Caller} key=${`${caller.number} ${caller.since}`} caller=${caller} />`,
            )}
          </ol>`
          : html`<p class="empty">${t("empty.waiting")}</p>`
      }
    </div>
    <div class="part">
      <h3 id=${`${heading}-members`}>${t("queue.members")}</h3>
      ${
        queue.members.length
          ? html`<${Table} columns=${columns} items=${withIds(queue.members)} labelled=${`${heading}-members`} />`
          : html`<p class="empty">${t("empty.members")}</p>`
      }
    </div>
  </section>`;
}

function Caller({ caller }) {
  const late = useOverdue(caller.since);
  return html`<li class=${late ? "late" : ""}>
    <span class="position"><span class="hidden">${t("position")} </span>${caller.position}</span>
    <${Person} who=${caller} />
    <span class="wait"><span class="hidden">${t("waits.for")} </span><${Since} at=${caller.since} /></span>
  </li>`;
}

/** A number may be a member twice, as an agent and as a phone. */
function withIds(members) {
  return members.map((member, index) => ({ ...member, id: `${member.number} ${index}` }));
}

function memberColumns() {
  return [
    { key: "member", label: t("member"), area: "a", cell: (member) => html`<${Person} who=${member} />` },
    { key: "state", label: t("state"), area: "b", cell: state },
    { key: "since", label: t("since"), area: "d", numeric: true, cell: since },
    {
      key: "other",
      label: t("talks.with"),
      area: "c",
      cell: ({ caller }) => caller && html`<${Person} who=${caller} />`,
    },
    { key: "calls", label: t("queue.calls"), numeric: true, cell: ({ calls }) => html`<span>${calls}</span>` },
    {
      key: "last",
      label: t("queue.last"),
      numeric: true,
      cell: ({ last_call: at }) => at && html`<${Moment} at=${at} />`,
    },
  ];
}

function state({ state: value, paused, reason }) {
  return html`<${Badge} state=${value} />
    ${paused && value !== "paused" && html` <${Badge} state="paused" />`}
    ${paused && reason && html`<span class="second"><${Data} text=${reason} /></span>`}`;
}

function since({ paused, paused_since: pausedSince, since: at }) {
  const begin = (paused && pausedSince) || at;
  return begin && html`<${Since} at=${begin} />`;
}
