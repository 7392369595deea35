// The page: login, navigation and views.

import { html, render, useEffect, useMemo, useState } from "./vendor/htm-preact-standalone.module.js";
import { Connection } from "./connection.js";
import { request } from "./http.js";
import { keptLanguage, language, setLanguage, t } from "./language.js";
import { Login } from "./login.js";
import { Announcer, Banner, LanguageSwitch, Title, waiting } from "./notices.js";
import { Data, Icon, useOverdue } from "./parts.js";
import { address, readRoute } from "./route.js";
import { link, list, live, receive, reset, serviceLost, useStore } from "./store.js";
import { Agents } from "./views/agents.js";
import { Calls } from "./views/calls.js";
import { Conferences } from "./views/conferences.js";
import { Phone } from "./views/phone.js";
import { Phones } from "./views/phones.js";
import { Queues } from "./views/queues.js";
import { Records } from "./views/records.js";
import { Voicemail } from "./views/voicemail.js";

const VIEWS = {
  calls: Calls,
  queues: Queues,
  phones: Phones,
  agents: Agents,
  conferences: Conferences,
  voicemail: Voicemail,
  records: Records,
};

function App() {
  const [session, setSession] = useState(undefined); // undefined: not asked yet; null: none
  const [reason, setReason] = useState("");
  const [, setLanguageShown] = useState(language);

  async function open() {
    const { status, data } = await request("GET", "session");
    if (status === 200) {
      if (!keptLanguage()) chooseLanguage(data.language);
      setSession(data);
    } else {
      if (status !== 401) setReason("login.unreachable");
      setSession(null);
    }
  }

  function chooseLanguage(code, keep) {
    setLanguage(code, keep);
    setLanguageShown(code);
  }

  function ended(why) {
    reset();
    setReason(why);
    setSession(null);
  }

  async function logout() {
    const { status } = await request("POST", "logout");
    ended(status ? "login.left" : "login.stuck");
  }

  useEffect(() => void open(), []);
  const onLanguage = (code) => chooseLanguage(code, true);
  if (session === undefined) return null;
  if (!session) return html`<${Login} reason=${reason} onDone=${open} onLanguage=${onLanguage} />`;
  return html`<${Page} ...${{ session, onLanguage, onLogout: logout, onSessionEnd: () => ended("login.ended") }} />`;
}

function Page({ session, onLanguage, onLogout, onSessionEnd }) {
  const [route, setRoute] = useState(readRoute);
  const [phoneOpened, setPhoneOpened] = useState(false);
  const [phoneState, setPhoneState] = useState(null);
  const connection = useMemo(() => new Connection({ message: receive, lost: serviceLost, ended: onSessionEnd }), []);
  const views = [...Object.keys(VIEWS)].filter((name) => name !== "records" || session.records);
  if (session.phone) views.push("phone");
  const view = views.includes(route.view) ? route.view : "calls";
  useStore("link");

  useEffect(() => {
    connection.start();
    return () => connection.stop();
  }, []);
  useEffect(() => {
    const follow = () => setRoute(readRoute());
    addEventListener("hashchange", follow);
    return () => removeEventListener("hashchange", follow);
  }, []);
  const [opened] = useState({ view });
  useEffect(() => {
    if (view === "phone") setPhoneOpened(true);
    if (opened.view === view) return;
    opened.view = view;
    scrollTo(0, 0);
    document.querySelector("main > :not([hidden]) h1, main > h1, main > header h1")?.focus({ preventScroll: true });
  }, [view]);

  const View = VIEWS[view];
  return html`
    <a class="skip" href="#main" onClick=${skip}>${t("skip")}</a>
    <header class="top">
      <p class="brand"><${Icon} name="calls" /> <span translate=${false}>labredes.pbx</span></p>
      <${State} />
      <div class="account">
        <${LanguageSwitch} onLanguage=${onLanguage} />
        <span class="user"><span class="hidden">${t("user")} </span><${Data} text=${session.user} /></span>
        <button type="button" onClick=${onLogout}>${t("logout")}</button>
      </div>
    </header>
    <${Navigation} views=${views} view=${view} phoneState=${phoneState} />
    <div class="content ${live() || link.service === "connecting" ? "" : "stale"}">
      <${Banner} onRetry=${() => connection.now()} />
      <main id="main" tabindex="-1">
        ${
          View &&
          html`<div class="view" key=${view}>
            <${View} parameters=${route.parameters} onSessionEnd=${onSessionEnd} />
          </div>`
        }
        ${phoneOpened && html`<${Phone} hidden=${view !== "phone"} language=${language} onState=${setPhoneState} />`}
      </main>
    </div>
    <${Announcer} />
    <${Title} view=${view} />
  `;
}

// A plain link to #main would be taken for a view.
function skip(event) {
  event.preventDefault();
  document.getElementById("main").focus();
}

function State() {
  useStore("link");
  const lost = link.service === "lost" || link.exchange === "lost";
  const state = live() ? "on" : lost ? "off" : "wait";
  return html`<p class="link ${state}">${t(`link.${state}`)}</p>`;
}

function Navigation({ views, view, phoneState }) {
  useStore("calls", "phones", "queues", "agents", "conferences", "voicemail");
  const queues = waiting();
  const late = useOverdue(queues.since);
  const sum = (topic, field) => list(topic).reduce((total, item) => total + item[field], 0);
  const counts = {
    calls: list("calls").length,
    queues: queues.number,
    phones: list("phones").filter((phone) => phone.registered).length,
    agents: list("agents").filter((agent) => agent.state !== "logged_off").length,
    conferences: list("conferences").filter(({ participants }) => participants.length).length,
    voicemail: sum("voicemail", "new"),
    phone: phoneState?.ringing ? 1 : phoneState?.missed || undefined,
  };
  return html`<nav class="views" aria-label=${t("navigation")}>
    <ul>
      ${views.map((name) => {
        const count = counts[name];
        const urgent = name === "phone" ? phoneState?.ringing : late;
        const alarm = count && (name === "queues" || name === "phone") ? (urgent ? "late" : "warn") : "";
        const meaning = name === "phone" && urgent ? "state.ringing" : `count.${name}`;
        return html`<li key=${name}>
          <a href=${address(name)} aria-current=${name === view ? "page" : undefined} class=${alarm}>
            <${Icon} name=${name} /> <span class="label">${t(`view.${name}`)}</span>
            ${
              count !== undefined && html`<span class="count">${count}<span class="hidden"> ${t(meaning)}</span></span>`
            }
          </a>
        </li>`;
      })}
    </ul>
  </nav>`;
}

render(html`<${App} />`, document.getElementById("app"));
