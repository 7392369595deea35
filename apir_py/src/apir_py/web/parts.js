// What the views share.

import {
  Component,
  html,
  useEffect,
  useLayoutEffect,
  useRef,
  useState,
} from "./vendor/htm-preact-standalone.module.js";
import { hostNow, showSince } from "./clock.js";
import { Icon } from "./icons.js";
import { has, moment, t } from "./language.js";
import { known, link } from "./store.js";

/** Seconds after which a waiting caller has waited too long. */
export const TOO_LONG = 120;

const LONGEST_NAME = 80;
// Control characters, and those that turn the direction of the text around them.
// eslint-disable-next-line no-control-regex
const UNSEEN = /[\u0000-\u001f\u007f-\u009f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]/g;

/** Text that somebody else has chosen, made fit to be shown: no control characters, and not endless. */
export function shown(text, longest = LONGEST_NAME) {
  const clean = String(text ?? "")
    .slice(0, 4 * longest)
    .replace(UNSEEN, "");
  const letters = [...clean];
  return letters.length > longest ? `${letters.slice(0, longest).join("")}…` : clean;
}

/** A text of the exchange, never to be translated. */
export function Data({ text, kind = "", longest }) {
  return html`<bdi class=${kind} translate=${false}>${shown(text, longest)}</bdi>`;
}

/** A name with its number. */
export function Person({ who }) {
  if (!who?.number && !who?.name) return html`<span class="person unknown">${who ? t("anonymous") : "–"}</span>`;
  return html`<span class="person">
    ${who.name && html`<${Data} kind="name" text=${who.name} />`} <${Data} kind="number" text=${who.number} />
  </span>`;
}

/** A state in words and colour. */
export function Badge({ state }) {
  const key = `state.${state}`;
  return html`<span class="badge is-${has(key) ? state : "other"}">${has(key) ? t(key) : shown(state)}</span>`;
}

/** How long ago a moment is, running. */
export function Since({ at }) {
  const element = useRef();
  useLayoutEffect(() => (at ? showSince(element.current, Date.parse(at)) : undefined), [at]);
  return at ? html`<span class="duration" ref=${element} />` : html`<span class="unknown">–</span>`;
}

/** Whether `seconds` have gone by since a moment; renders again when they have. */
export function useOverdue(at, seconds = TOO_LONG) {
  const [, render] = useState(0);
  const left = at ? Date.parse(at) + seconds * 1000 - hostNow() : Infinity;
  useEffect(() => {
    if (left <= 0 || left === Infinity) return undefined;
    const timer = setTimeout(() => render((count) => count + 1), left + 20);
    return () => clearTimeout(timer);
  });
  return left <= 0;
}

/** A view's heading; it takes the focus when the view is chosen. */
export function Heading({ text, children, id = "heading" }) {
  return html`<header class="heading"><h1 id=${id} tabindex="-1">${text}</h1>${children}</header>`;
}

/** What stands where there is nothing: that it is not known yet, or what will appear. */
export function Empty({ topic, text }) {
  if (!topic || known(topic)) return html`<p class="empty">${text ?? t(`empty.${topic}`)}</p>`;
  return html`<p class="empty">${t(link.exchange === "lost" ? "empty.lost" : "empty.loading")}</p>`;
}

/** A field that narrows a list down. */
export function Search({ value, onInput }) {
  return html`<label class="search">
    <span class="hidden">${t("search")}</span>
    <input type="search" value=${value} placeholder=${t("search")} onInput=${(event) => onInput(event.target.value)} />
  </label>`;
}

/** Whether one of these people or texts contains what is searched for. */
export function matches(words, ...values) {
  const text = fold(values.map((value) => (value?.number === undefined ? value : `${value.name} ${value.number}`)));
  return fold(words)
    .split(/\s+/)
    .every((word) => text.includes(word));
}

function fold(value) {
  return String(value ?? "")
    .normalize("NFD")
    .replace(/\p{M}/gu, "")
    .toLowerCase();
}

/**
 * A table, which becomes cards on a narrow screen. Columns are {key, label, cell(item), area, numeric}: `area` is the
 * place on the card (a, b, c, d; the others follow with their label). Keep the list of columns: a new one renders all.
 */
export function Table({ columns, items, labelled = "heading", rowClass }) {
  return html`<table role="table" aria-labelledby=${labelled}>
    <thead role="rowgroup">
      <tr role="row">
        ${columns.map(
          ({ key, label, numeric }) =>
            html`<th role="columnheader" scope="col" class="col-${key} ${numeric ? "numeric" : ""}">${label}</th>`,
        )}
      </tr>
    </thead>
    <tbody role="rowgroup">
      ${items.map((item) => html`<${Row} key=${item.id} item=${item} columns=${columns} rowClass=${rowClass} />`)}
    </tbody>
  </table>`;
}

class Row extends Component {
  shouldComponentUpdate(next) {
    return next.item !== this.props.item || next.columns !== this.props.columns;
  }

  render({ item, columns, rowClass }) {
    return html`<tr role="row" class=${rowClass?.(item) ?? ""}>
      ${columns.map(({ key, label, cell, area, numeric }) => {
        const content = cell(item);
        const classes = [`col-${key}`, area ? `area-${area}` : "more", numeric && "numeric", !content && "nothing"];
        return html`<td role="cell" class=${classes.filter(Boolean).join(" ")} data-label=${label}>${content}</td>`;
      })}
    </tr>`;
  }
}

/** Time of day, with the whole date for machines. */
export function Moment({ at, always }) {
  return at ? html`<time datetime=${at}>${moment(at, always)}</time>` : null;
}

export { Icon };
