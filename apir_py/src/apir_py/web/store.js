// What the service has said, by topic, and the state of the connection. Components read it with useStore.

import { useLayoutEffect, useState } from "./vendor/htm-preact-standalone.module.js";
import { runClock, setClock, stopClock } from "./clock.js";

const byId = (a, b) => String(a.id).localeCompare(String(b.id), undefined, { numeric: true });
const newestFirst = (a, b) => (a.began < b.began ? 1 : a.began > b.began ? -1 : byId(a, b));

const ORDERS = { calls: newestFirst, phones: byId, queues: byId, agents: byId, conferences: byId, voicemail: byId };

const topics = {};
const listeners = new Set();
const changed = new Set();
let scheduled = false;

/**
 * service: 'connecting', 'connected' or 'lost'; exchange: null, 'connected' or 'lost'; since: when it was lost (ms);
 * notice: what was regained, {what, at, seconds, missed}, for a while.
 */
export const link = {};

/** Forget everything, as before a login. */
export function reset() {
  for (const topic of Object.keys(ORDERS)) {
    topics[topic] = { items: new Map(), sorted: [], known: false, fresh: false };
    touch(topic);
  }
  Object.assign(link, { service: "connecting", serviceSince: Date.now(), exchange: null, exchangeSince: 0 });
  Object.assign(link, { reason: "", missed: false, notice: null });
  touch("link");
}

/** Items of a topic in their order. */
export function list(topic) {
  const found = topics[topic];
  found.sorted ??= [...found.items.values()].sort(ORDERS[topic]);
  return found.sorted;
}

export function find(topic, id) {
  return topics[topic].items.get(id);
}

/** Whether a topic's content has come at all. */
export function known(topic) {
  return topics[topic].known;
}

/** Whether what is shown is what is so now. */
export function live() {
  return (
    link.service === "connected" && link.exchange === "connected" && Object.values(topics).every(({ fresh }) => fresh)
  );
}

/** Render again when one of these topics, or 'link', changes. */
export function useStore(...names) {
  const [, render] = useState(0);
  // Not useEffect, which runs later: what came meanwhile would not be shown.
  useLayoutEffect(() => listen(names, () => render((count) => count + 1)), [names.join()]);
}

/** Call `callback` after each change of these topics; gives the function that ends it. */
export function listen(names, callback) {
  const listener = { names, callback };
  listeners.add(listener);
  return () => listeners.delete(listener);
}

/** A message of the service. */
export function receive(message) {
  const topic = topics[message.topic];
  setClock(message.at);
  if (message.type === "hello") hello(message);
  else if (message.type === "exchange") exchange(message);
  else if (!topic) return;
  else if (message.type === "snapshot") {
    topic.items = new Map(message.items.map((item) => [item.id, item]));
    topic.known = topic.fresh = true;
    if (live()) runClock();
  } else if (message.type === "change") topic.items.set(message.item.id, message.item);
  else if (message.type === "gone") topic.items.delete(message.id);
  if (topic) {
    topic.sorted = null;
    touch(message.topic);
    if (message.type === "snapshot") touch("link");
  }
}

/** The connection to the service has failed. */
export function serviceLost({ missed }) {
  if (link.service === "connected") link.serviceSince = Date.now();
  link.service = "lost";
  link.missed ||= Boolean(missed);
  link.notice = null;
  outdate();
}

/** Take back what was said about a connection that is there again. */
export function dismiss() {
  link.notice = null;
  touch("link");
}

function hello(message) {
  if (link.service === "lost") notice("service", link.serviceSince);
  link.service = "connected";
  link.missed = false;
  exchange(message);
}

function exchange({ at, state, reason }) {
  if (state === "lost") {
    if (link.exchange !== "lost") link.exchangeSince = Date.parse(at);
    link.notice = null;
    outdate();
  } else if (link.exchange === "lost") notice("exchange", link.exchangeSince);
  Object.assign(link, { exchange: state, reason });
  touch("link");
}

/** What is shown is old until the next snapshots. */
function outdate() {
  for (const topic of Object.values(topics)) topic.fresh = false;
  stopClock();
  touch("link");
}

function notice(what, since) {
  const at = Date.now();
  link.notice = { what, at, seconds: (at - since) / 1000, missed: link.missed };
}

function touch(name) {
  changed.add(name);
  if (scheduled) return;
  scheduled = true;
  // A page in the background gets no frames, yet its title has to stay right.
  if (document.hidden) setTimeout(flush, 200);
  else requestAnimationFrame(flush);
}

function flush() {
  scheduled = false;
  const names = [...changed];
  changed.clear();
  for (const listener of [...listeners]) if (names.some((name) => listener.names.includes(name))) listener.callback();
}

document.addEventListener("visibilitychange", () => scheduled && flush());
reset();
