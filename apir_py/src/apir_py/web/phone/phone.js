// A telephone for browsers: `mountPhone` puts it on a page. See README.md.
import { Component, html, render } from "../vendor/htm-preact-standalone.module.js";
import { Line } from "./line.js";
import { Sounds } from "./sound.js";
import { texts } from "./texts.js";

const KEYS = ["1", "2 ABC", "3 DEF", "4 GHI", "5 JKL", "6 MNO", "7 PQRS", "8 TUV", "9 WXYZ", "*", "0 +", "#"];
const INFORMATION_MS = 10000; // a failure stays until something else is said
const ICONS = {
  call:
    "M6.6 10.8a15 15 0 0 0 6.6 6.6l2.2-2.2a1 1 0 0 1 1-.25 11.4 11.4 0 0 0 3.6.57 " +
    "1 1 0 0 1 1 1V20a1 1 0 0 1-1 1" +
    "A17 17 0 0 1 3 4a1 1 0 0 1 1-1h3.5a1 1 0 0 1 1 1 11.4 11.4 0 0 0 .57 3.6 1 1 0 0 1-.25 1z",
  hold: "M7 5h3.5v14H7zM13.5 5H17v14h-3.5z",
  mute:
    "M12 15a3 3 0 0 0 3-3V6a3 3 0 0 0-6 0v6a3 3 0 0 0 3 3zm6-3a6 6 0 0 1-12 0H4a8 8 0 0 0 7 7.9" +
    "V22h2v-2.1A8 8 0 0 0 20 12z",
  transfer: "M14 4l6 6-6 6v-4c-5 0-8 1.5-10 5 .5-5.5 3.5-9 10-9z",
  erase:
    "M22 5H8l-6 7 6 7h14zM12 8.6l2.5 2.5L17 8.6l1.4 1.4-2.5 2.5 2.5 2.5-1.4 1.4-2.5-2.5" +
    "-2.5 2.5-1.4-1.4 2.5-2.5-2.5-2.5z",
};

const icon = (name) =>
  html`<svg class="phone-icon" viewBox="0 0 24 24" aria-hidden="true"><path d=${ICONS[name]} /></svg>`;

const rings = (call) => Number(call.state === "incoming");

/** The time since a moment, as minutes and seconds. */
class Clock extends Component {
  componentDidMount() {
    this.timer = setInterval(() => this.setState({}), 1000);
  }
  componentWillUnmount() {
    clearInterval(this.timer);
  }
  render({ since, label }) {
    const seconds = Math.max(0, Math.round((Date.now() - since) / 1000));
    const two = (number) => String(number).padStart(2, "0");
    const hours = seconds >= 3600 ? `${Math.floor(seconds / 3600)}:` : "";
    const time = `${hours}${two(Math.floor(seconds / 60) % 60)}:${two(seconds % 60)}`;
    return html`<span class="phone-clock" role="timer" aria-label=${label}>${time}</span>`;
  }
}

class Phone extends Component {
  constructor(props) {
    super(props);
    this.sounds = new Sounds();
    this.line = new Line(() => this.changed(), (words, failure) => this.say(words, failure));
    this.state = { number: "", last: "", devices: [], transferring: null };
    this.reported = "";
    this.typed = (event) => this.key(event);
    this.devicesChanged = () => this.listDevices();
    this.leave = () => this.line.stop();
  }

  get text() {
    return texts(this.props.language);
  }

  componentDidMount() {
    document.addEventListener("keydown", this.typed);
    addEventListener("pagehide", this.leave);
    navigator.mediaDevices?.addEventListener?.("devicechange", this.devicesChanged);
    this.changed();
  }

  componentWillUnmount() {
    document.removeEventListener("keydown", this.typed);
    removeEventListener("pagehide", this.leave);
    navigator.mediaDevices?.removeEventListener?.("devicechange", this.devicesChanged);
    clearTimeout(this.timer);
    this.gone = true;
    this.line.close();
    this.sounds.close();
    this.notice?.close();
  }

  // A button that disappears takes the focus with it: keep it in the phone.
  getSnapshotBeforeUpdate() {
    return this.base.contains(document.activeElement);
  }

  componentDidUpdate(_props, _state, hadFocus) {
    if (hadFocus && !this.base.contains(document.activeElement)) this.base.querySelector("[data-focus]")?.focus();
  }

  /** The line has changed. */
  changed() {
    if (this.gone) return;
    const { calls, status, missedCalls, voicemail } = this.line;
    const incoming = calls.find((call) => call.state === "incoming");
    const established = calls.some((call) => call.established);
    const calling = calls.some((call) => call.state === "ringing" && !call.early);
    this.sounds.play(incoming ? (established ? "waiting" : "ring") : calling && !established ? "calling" : null);
    this.notify(incoming);
    const state = {
      registered: status === "registered",
      ringing: Boolean(incoming),
      missed: missedCalls.length,
      voicemail: voicemail?.fresh || 0,
    };
    const report = JSON.stringify(state);
    if (report !== this.reported) this.props.onState(state);
    this.reported = report;
    this.setState({});
  }

  /** A notification for whoever looks at something else. */
  notify(call) {
    if (call?.id === this.noticeOf) return;
    this.noticeOf = call?.id;
    this.notice?.close();
    this.notice = null;
    if (!call || document.hasFocus() || !("Notification" in window) || Notification.permission !== "granted") return;
    try {
      this.notice = new Notification(this.text("incoming"), { body: this.who(call), requireInteraction: true });
      this.notice.onclick = () => focus();
    } catch {
      // Some browsers on telephones only take notifications from a service worker.
    }
  }

  say(words, failure = false) {
    clearTimeout(this.timer);
    const said = words && this.text(words.text, { ...words, who: this.who(words) });
    this.setState({ information: failure ? "" : said, failure: failure ? said : "" });
    if (said && !failure) this.timer = setTimeout(() => this.setState({ information: "" }), INFORMATION_MS);
  }

  who({ number, name }) {
    return name && number ? `${name} (${number})` : name || number || this.text("unknown");
  }

  async listDevices() {
    this.setState({ devices: await navigator.mediaDevices.enumerateDevices() });
  }

  login(event) {
    event.preventDefault();
    const form = new FormData(event.target);
    this.say(null);
    this.sounds.allow();
    this.line.login(form.get("number").trim(), form.get("password"));
  }

  async call(number) {
    this.sounds.allow();
    this.say(null);
    if (!number) return this.setState({ number: this.state.last });
    const call = await this.line.call(number);
    if (call) this.setState({ number: "", last: number, transferring: null });
    return call;
  }

  /** Digits typed anywhere in the phone, outside of a field, are its keys. */
  key(event) {
    const { target, key } = event;
    if (event.ctrlKey || event.altKey || event.metaKey || !this.base.offsetParent || this.line.status === "out") return;
    if (target.closest("input, select, textarea") || !(target === document.body || this.base.contains(target))) return;
    if (/^[0-9*#]$/.test(key)) this.press(key);
    else if (key === "Backspace" && !this.active) this.setState({ number: this.state.number.slice(0, -1) });
    else return;
    event.preventDefault();
  }

  /** The call that hears keys. */
  get active() {
    const { calls } = this.line;
    return calls.find((call) => call.established && !call.held) || calls.find((call) => call.early);
  }

  press(key) {
    this.sounds.key(key);
    if (this.active) this.active.press(key);
    else this.setState({ number: this.state.number + key });
  }

  render() {
    const { line, text } = this;
    const { information, failure } = this.state;
    const problem = failure || (line.microphoneProblem && text(line.microphoneProblem));
    const status = { out: "out", connecting: "connecting", registered: "online", lost: "lost" }[line.status];
    return html`
      <section class="phone" aria-label=${text("phone")} data-status=${line.status}>
        <header class="phone-head">
          <p class="phone-status"><span class="phone-lamp" aria-hidden="true"></span>${
            line.status !== "out" && html`<strong>${line.number}</strong>${" "}`
          }${text(status)}</p>
          ${
            line.status !== "out" &&
            html`<button type="button" class="phone-quiet" onClick=${() => line.logout()}>${text("logout")}</button>`
          }
        </header>
        <p class="phone-said" role="status">${information}</p>
        <p class="phone-said phone-failure" role="alert">${problem}</p>
        <p class="phone-hidden" role="status">
          ${line.calls.map((call) => `${this.who(call)}: ${this.stateOf(call)}. `)}
        </p>
        ${line.status === "out" ? this.loginForm() : this.panel()}
      </section>
    `;
  }

  loginForm() {
    const { text } = this;
    if (!Line.possible) {
      return html`<p class="phone-said phone-failure">${text(isSecureContext ? "unsupported" : "insecure")}</p>`;
    }
    return html`
      <form class="phone-login" onSubmit=${(event) => this.login(event)}>
        <label>${text("number")}
          <input name="number" required data-focus inputmode="tel" autocapitalize="off" spellcheck=${false}
            autocomplete="section-phone username" defaultValue=${this.line.number} />
        </label>
        <label>${text("password")}
          <input name="password" type="password" required autocomplete="section-phone current-password" />
        </label>
        <button class="phone-go">${text("login")}</button>
        <p class="phone-hint">${text("loginHint")}</p>
      </form>
    `;
  }

  panel() {
    const { line } = this;
    return html`
      <div class="phone-main">
        ${
          line.calls.length > 0 &&
          html`<div class="phone-calls" role="group" aria-label=${this.text("calls")}>
            ${[...line.calls].sort((one, other) => rings(other) - rings(one)).map((call) => this.callCard(call))}
          </div>`
        }
        ${this.dial()}
      </div>
      <div class="phone-side">${this.voicemail()}${this.missed()}${this.settings()}</div>
    `;
  }

  stateOf(call) {
    if (call.silent) return this.text("silentNow");
    if (call.held) return this.text("held");
    // With early sound, the exchange may as well play an announcement.
    return this.text(call.heldByOther ? "heldByOther" : call.early && !call.established ? "calling" : call.state);
  }

  callCard(call) {
    const { text } = this;
    const button = (name, label, icons, action, extra = {}) => html`
      <button type="button" class=${`phone-action phone-${name}`} onClick=${action} ...${extra}>
        ${icon(icons)}<span>${label}</span>
      </button>`;
    const toggle = (name, on, action) => button(name, text(name), name, action, { "aria-pressed": String(on) });
    const other = this.line.calls.find((one) => one !== call && one.established);
    return html`
      <article class="phone-call" key=${call.id} aria-label=${this.who(call)}
        data-state=${call.held ? "held" : call.state}>
        <h2 class="phone-who">${call.name || call.number || text("unknown")}</h2>
        <p class="phone-what">${call.name && html`<span>${call.number}</span>`}<span>${this.stateOf(call)}</span>${
          call.answered && html`<${Clock} since=${call.answered} label=${text("duration")} />`
        }</p>
        <div class="phone-actions">
          ${
            call.established && [
              toggle("hold", call.held, () => call.hold()),
              toggle("mute", call.muted, () => call.mute()),
              button("transfer", text("transfer"), "transfer", () => this.openTransfer(call), {
                "aria-expanded": String(this.state.transferring === call.id),
              }),
            ]
          }
          ${
            call.state === "incoming" &&
            button("answer", text("answer"), "call", () => this.answer(call), {
              "data-focus": true,
              disabled: call.busy,
            })
          }
          ${button("end", text(call.state === "incoming" ? "reject" : "hangUp"), "call", () => call.hangUp(), {
            "data-focus": true,
          })}
        </div>
        ${
          call.established &&
          other &&
          call.held &&
          html`<button type="button" class="phone-complete" onClick=${() => call.transfer(other.number, other)}>
            ${text("complete", { who: call.name || call.number, other: other.name || other.number })}
          </button>`
        }
        ${call.established && this.state.transferring === call.id && this.transferForm(call)}
      </article>
    `;
  }

  answer(call) {
    this.sounds.allow();
    this.say(null);
    call.answer();
  }

  openTransfer(call) {
    const open = this.state.transferring !== call.id;
    this.setState({ transferring: open ? call.id : null }, () => {
      if (open) this.base.querySelector(".phone-target").focus();
    });
  }

  transferForm(call) {
    const { text } = this;
    const number = ({ target }) => (target.form || target).elements.target.value.trim();
    return html`
      <form class="phone-transferring" onSubmit=${(event) => {
        event.preventDefault();
        call.transfer(number(event));
        this.setState({ transferring: null });
      }}>
        <label>${text("transferTo")}
          <input class="phone-target" name="target" required inputmode="tel" autocomplete="off"
            pattern="[0-9A-Za-z*#+]+"
            onKeyDown=${(event) => event.key === "Escape" && this.openTransfer(call)} />
        </label>
        <div class="phone-actions">
          <button class="phone-go">${text("transferNow")}</button>
          <button type="button" onClick=${(event) => event.target.form.reportValidity() && this.call(number(event))}>
            ${text("consult")}
          </button>
          <button type="button" class="phone-quiet" onClick=${() => this.openTransfer(call)}>${text("cancel")}</button>
        </div>
      </form>
    `;
  }

  dial() {
    const { text, active } = this;
    const { number, last } = this.state;
    const pad = html`
      <div class="phone-pad" role="group" aria-label=${text("keypad")}>
        ${KEYS.map((both) => {
          const [key, letters] = both.split(" ");
          return html`<button type="button" key=${key} aria-label=${text("key", { key })}
            onClick=${() => this.press(key)}>
            <span>${key}</span><small aria-hidden="true">${letters}</small>
          </button>`;
        })}
      </div>`;
    if (active) {
      return html`<div class="phone-dial">
        <output class="phone-keys" aria-label=${text("keys")}>${
          active.keys || html`<span class="phone-hint">${text("keysHint")}</span>`
        }</output>
        ${pad}
      </div>`;
    }
    return html`
      <form class="phone-dial" onSubmit=${(event) => {
        event.preventDefault();
        this.call(number);
      }}>
        <div class="phone-number">
          <input data-focus type="tel" autocomplete="off"
            aria-label=${text("callNumber")} placeholder=${text("callNumber")}
            value=${number} onInput=${(event) => this.setState({ number: event.target.value })} />
          ${
            number &&
            html`<button type="button" class="phone-quiet" aria-label=${text("erase")}
              onClick=${() => this.setState({ number: number.slice(0, -1) })}>${icon("erase")}</button>`
          }
        </div>
        ${pad}
        <button class="phone-go phone-answer" disabled=${this.line.status !== "registered"}>
          ${icon("call")}<span>${!number && last ? text("redial", { number: last }) : text("call")}</span>
        </button>
      </form>
    `;
  }

  voicemail() {
    const { text } = this;
    const { voicemail } = this.line;
    if (!voicemail) return null;
    const { fresh, number } = voicemail;
    const news = fresh ? text(fresh === 1 ? "voicemailOne" : "voicemailNew", { count: fresh }) : text("voicemailNone");
    return html`
      <div class="phone-box phone-voicemail" data-waiting=${fresh > 0}>
        <h2>${text("voicemail")}</h2>
        <p>${news}</p>
        ${
          number &&
          html`<button type="button" onClick=${() => this.call(number)}>
            ${icon("call")}<span>${text("callBack", { number })}</span>
          </button>`
        }
      </div>
    `;
  }

  missed() {
    const { text, line } = this;
    const { missedCalls } = line;
    const time = new Intl.DateTimeFormat(this.props.language, { hour: "2-digit", minute: "2-digit" });
    return html`
      <div class="phone-box phone-missed">
        <h2>${text("missedCalls")}</h2>
        ${
          missedCalls.length
            ? html`<ul>
                ${missedCalls.map(
                  ({ number, name, at }) => html`<li key=${at}>
                    <time dateTime=${new Date(at).toISOString()}>${time.format(at)}</time>
                    <span>${this.who({ number, name })}</span>
                    ${
                      number &&
                      html`<button type="button" aria-label=${text("callBack", { number })}
                        onClick=${() => this.call(number)}>${icon("call")}</button>`
                    }
                  </li>`,
                )}
              </ul>
              <button type="button" class="phone-quiet" onClick=${() => line.forgetMissed()}>${text("clear")}</button>`
            : html`<p class="phone-hint">${text("noMissed")}</p>`
        }
      </div>
    `;
  }

  settings() {
    const { text, line } = this;
    const choice = (kind, label, chosen, choose) => {
      const devices = this.state.devices.filter((device) => device.kind === kind && device.deviceId !== "default");
      return html`<label>${label}
        <select value=${chosen} onChange=${(event) => choose(event.target.value)}>
          <option value="">${text("standard")}</option>
          ${devices.map(
            ({ deviceId, label: name }, index) =>
              html`<option value=${deviceId}>${name || text("device", { number: index + 1 })}</option>`,
          )}
        </select>
      </label>`;
    };
    return html`
      <details class="phone-box phone-settings" onToggle=${(event) => event.target.open && this.listDevices()}>
        <summary>${text("settings")}</summary>
        ${choice("audioinput", text("microphone"), line.microphone.chosen, (id) => line.chooseMicrophone(id))}
        ${
          "setSinkId" in HTMLMediaElement.prototype &&
          choice("audiooutput", text("speaker"), line.speaker, (id) => line.chooseSpeaker(id))
        }
        ${
          "Notification" in window &&
          Notification.permission === "default" &&
          html`<button type="button" onClick=${() => Notification.requestPermission().then(() => this.setState({}))}>
            ${text("notifications")}
          </button>`
        }
      </details>
    `;
  }
}

/** Load the phone's style, once. */
function style() {
  const link = document.createElement("link");
  link.rel = "stylesheet";
  link.href = new URL("phone.css", import.meta.url);
  return new Promise((resolve) => {
    link.onload = link.onerror = resolve;
    document.head.append(link);
  });
}

await style();

/**
 * Put the phone into an element.
 *
 * language: es or en. onState gets {registered, ringing, missed, voicemail} at each change of one of them: two
 * booleans, the number of missed calls in the list and of new messages. The phone lasts until unmount(), also while the
 * element is hidden; unmount() unregisters it and ends its calls. setLanguage(language) changes its language.
 */
export function mountPhone(element, { language = "es", onState = () => {} } = {}) {
  const setLanguage = (chosen) => render(html`<${Phone} language=${chosen} onState=${onState} />`, element);
  setLanguage(language);
  return { setLanguage, unmount: () => render(null, element) };
}
