// A telephone line: registration, calls, missed calls and message-waiting of one number, over SIP on a WebSocket.
// It knows no page: whoever owns it is called at each change, and reads what it needs.
import { UA, WebSocketInterface } from "./jssip.js";
import { Microphone } from "./sound.js";

const REGISTERED_SECONDS = 90; // a connection that died without a word is noticed when this is renewed
const ANSWER_SECONDS = 8; // an exchange that is starting may lose the first request
const NETWORK_PAUSE = 0.7; // after a change of the network, which often comes in several steps
const RETRY_SECONDS = [1, 2, 4, 8, 15]; // between attempts to connect or to register
const REFUSALS = 4; // in a row, of a password that was right before: an exchange that starts refuses everybody
const SILENCE_SECONDS = 15; // a call without sound for so long, although the exchange answers, is ended
const CANDIDATE_MS = 1000; // wait for more addresses after the first one
const KEY_MS = { duration: 120, interToneGap: 80 };
const DEVICE = "phone.microphone";

/** Words, as the name of a text and what to put into it. */
const words = (text, values = {}) => ({ text, ...values });

/** What a final response to a call means; the exchange's own tones and prompts say the rest. */
function failure(code, cause) {
  if ([486, 600].includes(code)) return "busy";
  if ([404, 484, 604].includes(code)) return "notFound";
  if ([408, 487].includes(code) || cause === "No Answer" || cause === "Expires") return "noAnswer";
  if ([410, 430, 480].includes(code)) return "unreachable";
  if ([403, 603].includes(code)) return "rejected";
  if ([415, 488, 606].includes(code)) return "noCommonSound";
  if (cause === "Connection Error" || cause === "Request Timeout") return "exchangeGone";
  if (cause === "WebRTC Error" || cause === "Internal Error") return "browserFailed";
  return "failed";
}

/** One call. `state` is calling, ringing (the other side), incoming, talking or over. */
class Call {
  constructor(line, session, incoming) {
    this.line = line;
    this.session = session;
    this.id = session.id;
    this.incoming = incoming;
    this.state = incoming ? "incoming" : "calling";
    const party = session.remote_identity;
    this.know(party.uri.user, party.display_name);
    this.began = Date.now();
    this.answered = null;
    this.held = this.heldByOther = this.muted = this.silent = this.busy = false;
    this.keys = "";
    this.goal = ""; // the number to which it is being transferred
    this.audio = new Audio();
    this.audio.autoplay = true;
    this.follow();
  }

  know(number, name) {
    this.number = number || "";
    this.name = name && name !== this.number ? name : "";
  }

  /** Who the exchange says is at the other side: who has answered, or to whom one was transferred (RFC 3325). */
  identify(message) {
    const identity = message?.getHeader?.("P-Asserted-Identity") || "";
    const [, quoted, plain, number] = /^\s*(?:"((?:\\.|[^"\\])*)"|([^<"]*))\s*<sips?:([^@;>]+)/.exec(identity) || [];
    if (number) this.know(number, quoted ? quoted.replace(/\\(.)/g, "$1") : plain.trim());
  }

  get established() {
    return this.state === "talking";
  }

  follow() {
    const { session, line } = this;
    const on = (names, what) => {
      for (const name of names.split(" ")) session.on(name, (data) => (what(data), line.changed()));
    };
    if (session.connection) this.listen(session.connection);
    else session.on("peerconnection", ({ peerconnection }) => this.listen(peerconnection));
    session.on("icecandidate", ({ ready }) => setTimeout(ready, CANDIDATE_MS));
    on("progress", ({ originator, response }) => {
      if (originator !== "remote") return;
      this.identify(response);
      this.state = "ringing";
      this.early = Boolean(response && response.body); // the exchange sends its own tone or prompt
    });
    on("reinvite update", ({ request }) => this.identify(request));
    on("accepted confirmed", ({ response }) => {
      this.identify(response);
      this.state = "talking";
      this.answered ??= Date.now();
    });
    on("hold unhold", () => {
      const { local, remote } = session.isOnHold();
      Object.assign(this, { held: local, heldByOther: remote });
    });
    on("muted unmuted", () => (this.muted = session.isMuted().audio));
    on("ended", (end) => this.over(this.ending(end)));
    on("failed", (end) => {
      const { message, cause } = end;
      if (this.incoming && !this.stream) this.missed(end);
      const expected = this.incoming ? ["Canceled", "Rejected", "No Answer", "Expires"] : ["Canceled"];
      const code = message?.status_code;
      this.over(expected.includes(cause) ? null : words(failure(code, cause), { code: code || cause }));
    });
  }

  /** Play what comes, and notice when nothing does. */
  listen(connection) {
    connection.addEventListener("track", ({ track, streams }) => {
      this.audio.srcObject = streams[0] || new MediaStream([track]);
      this.line.useSpeaker(this.audio);
      this.line.changed();
    });
    connection.addEventListener("iceconnectionstatechange", () => {
      const was = this.silent;
      this.silent = ["disconnected", "failed"].includes(connection.iceConnectionState);
      clearTimeout(this.timer);
      if (this.silent) {
        if (!was) this.reconnect();
        this.timer = setTimeout(() => this.end(words("soundLost")), SILENCE_SECONDS * 1000);
      }
      this.line.changed();
    });
  }

  /** Tell the exchange the current address of this browser, and find a new way for the sound. */
  reconnect() {
    if (this.established && this.line.status === "registered") {
      this.session.renegotiate({ rtcOfferConstraints: { iceRestart: true } });
    }
  }

  missed({ originator, cause, message }) {
    const elsewhere = /cause=200\b|completed elsewhere/i.test(message?.getHeader?.("Reason") || "");
    if ((originator === "remote" || cause === "No Answer") && !elsewhere) this.line.remember(this);
  }

  ending({ originator, cause, message }) {
    if (this.last) return this.last;
    if (this.goal) return words("transferred", { number: this.goal });
    if (originator === "local" && cause === "Terminated") return null;
    if (cause === "Terminated" && message) return words("otherHungUp", this);
    return words(cause === "RTP Timeout" ? "soundLost" : "callBroken");
  }

  over(say) {
    this.state = "over";
    clearTimeout(this.timer);
    this.audio.srcObject = null;
    this.stream?.getTracks().forEach((track) => track.stop());
    this.line.forget(this, say);
  }

  /** Hang up, reject or cancel; `say` replaces what is said about it. */
  end(say, code) {
    this.last = say;
    if (!this.session.isEnded()) this.session.terminate(code ? { status_code: code } : {});
  }

  hangUp() {
    this.end(null, this.state === "incoming" ? 486 : undefined);
  }

  async answer() {
    if (this.busy) return;
    this.busy = true;
    this.line.changed();
    const stream = await this.line.openMicrophone();
    this.busy = false;
    if (stream && this.state === "incoming") {
      this.line.holdOthers(this);
      this.stream = stream;
      this.session.answer({ mediaStream: stream, pcConfig: { iceServers: [] } });
    } else stream?.getTracks().forEach((track) => track.stop());
    this.line.changed();
  }

  hold(wanted = !this.held) {
    if (!this.established || wanted === this.held) return;
    if (!wanted) this.line.holdOthers(this);
    if (!(wanted ? this.session.hold() : this.session.unhold())) this.line.say(words("notNow"));
  }

  mute(wanted = !this.muted) {
    this.session[wanted ? "mute" : "unmute"]({ audio: true });
  }

  press(key) {
    if (this.state !== "talking" && this.state !== "ringing") return;
    try {
      this.session.sendDTMF(key, { transportType: "RFC2833", ...KEY_MS });
    } catch {
      return; // no way for sound yet
    }
    this.keys += key;
    this.line.changed();
  }

  /** Hand the other party over to a number, or to the party of another call. */
  transfer(number, other) {
    const sent = this.session.refer(other ? other.session.remote_identity.uri : number, {
      replaces: other?.session,
      eventHandlers: {
        failed: () => this.notTransferred(),
        requestFailed: () => this.notTransferred(),
        accepted: () => this.end(words("transferred", { number })),
      },
    });
    if (!sent) return this.line.say(words("notNow"));
    this.goal = number;
    if (other) other.goal = number;
    this.line.say(words("transferring", { number }));
  }

  notTransferred() {
    this.line.say(words("notTransferred", { number: this.goal }), true);
    this.goal = "";
  }
}

export class Line {
  /** `changed` is called after each change; `say` with words, and whether they report a failure. */
  constructor(changed, say) {
    this.changed = changed;
    this.say = say;
    this.number = "";
    this.status = "out"; // out, connecting, registered, lost
    this.calls = [];
    this.missedCalls = [];
    this.voicemail = null; // { fresh, old, number }
    this.microphone = new Microphone(DEVICE);
    this.speaker = "";
    this.network = () => this.networkChanged();
    for (const name of ["online", "offline"]) addEventListener(name, this.network);
  }

  /** Whether browsers give this page a microphone and WebRTC at all. */
  static get possible() {
    return isSecureContext && Boolean(navigator.mediaDevices?.getUserMedia) && "RTCPeerConnection" in window;
  }

  login(number, password) {
    if (this.ua) this.stop();
    const socket = new WebSocketInterface(`${location.protocol === "http:" ? "ws" : "wss"}://${location.host}/ws`);
    const host = location.hostname;
    this.number = number;
    this.known = false; // whether the password was right once
    this.failures = 0;
    let ua;
    try {
      ua = new UA({
        sockets: [socket],
        uri: `sip:${number}@${host}`,
        password,
        register_expires: REGISTERED_SECONDS,
        session_timers: false,
        no_answer_timeout: 180,
        user_agent: "LabRedes browser phone",
      });
    } catch {
      return this.say(words("wrongNumber"), true);
    }
    this.ua = ua;
    this.status = "connecting";
    this.missedCalls = read(this.missedKey);
    const on = (name, what) => ua.on(name, (data) => ua === this.ua && (what(data), this.changed()));
    on("connected", () => this.again(ANSWER_SECONDS, () => this.restart()));
    on("registered", () => this.registered());
    on("registrationFailed", ({ response }) => this.registrationFailed(response));
    on("disconnected", ({ error }) => this.disconnected(error));
    on("newRTCSession", ({ session, originator }) => this.add(session, originator === "remote"));
    on("sipEvent", ({ event, request }) => event?.event === "message-summary" && this.summary(request.body || ""));
    ua.start();
    this.changed();
    this.openMicrophone().then((stream) => stream?.getTracks().forEach((track) => track.stop()));
  }

  logout() {
    this.stop();
    this.say(words("loggedOut"));
  }

  /** Unregister and end all calls, without a word. */
  stop() {
    const { ua } = this;
    clearTimeout(this.retry);
    for (const call of this.calls) call.end();
    this.ua = null;
    this.status = "out";
    this.voicemail = null;
    ua?.stop();
    this.changed();
  }

  close() {
    this.stop();
    for (const name of ["online", "offline"]) removeEventListener(name, this.network);
  }

  /** Do something later, unless something happens before. */
  again(seconds, what) {
    clearTimeout(this.retry);
    this.retry = setTimeout(() => this.ua && what(), seconds * 1000);
  }

  registered() {
    clearTimeout(this.retry);
    const back = this.status === "lost";
    this.status = "registered";
    this.failures = 0;
    this.say(back ? words("back") : this.known ? null : words("registered", this));
    this.known = true;
    for (const call of this.calls) call.reconnect();
  }

  registrationFailed(response) {
    const code = response?.status_code;
    const seconds = this.delay();
    if ([401, 403, 404, 407].includes(code) && (!this.known || this.failures >= REFUSALS)) {
      this.stop();
      return this.say(words(this.known ? "passwordChanged" : "wrongPassword"), true);
    }
    if (!code && this.ua.isConnected()) return this.restart(); // no answer in 32 s: the connection is dead
    this.lost(words("notRegistered"));
    this.again(seconds, () => this.ua.isConnected() && this.ua.register());
  }

  async disconnected() {
    clearTimeout(this.retry);
    // Of JsSIP's own attempts, which begin anew with each WebSocket that opens, even if it closes at once.
    const seconds = this.delay();
    Object.assign(this.ua.transport.recovery_options, { min_interval: seconds, max_interval: seconds });
    this.lost(words(navigator.onLine ? "exchangeGone" : "offline"));
    // A WebSocket that is refused does not say why.
    const { ua } = this;
    const answer = await fetch("/session", { cache: "no-store" }).catch(() => null);
    if (ua === this.ua && answer?.status === 401) {
      this.stop();
      this.say(words("sessionEnded"), true);
    }
  }

  /** Seconds until the next attempt. */
  delay() {
    this.failures += 1;
    return RETRY_SECONDS[Math.min(this.failures, RETRY_SECONDS.length) - 1];
  }

  lost(say) {
    if (this.status !== "lost") this.say(say, true);
    this.status = "lost";
    this.changed();
  }

  networkChanged() {
    if (!this.ua) return;
    if (navigator.onLine) this.again(NETWORK_PAUSE, () => this.restart());
    else this.lost(words("offline"));
  }

  /** Connect anew at once. */
  restart() {
    const { transport } = this.ua;
    transport.disconnect();
    transport.connect();
  }

  add(session, incoming) {
    const call = new Call(this, session, incoming);
    this.calls.push(call);
    return call;
  }

  forget(call, say) {
    this.calls = this.calls.filter((other) => other !== call);
    if (say) this.say(say, !["otherHungUp", "transferred"].includes(say.text));
    this.changed();
  }

  async call(number) {
    number = number.replace(/[\s().-]/g, "");
    if (!/^[0-9A-Za-z*#+]+$/.test(number)) return this.say(words("wrongNumber"), true);
    if (this.status !== "registered") return this.say(words("notConnected"), true);
    if (this.calling) return;
    this.calling = true;
    const stream = await this.openMicrophone();
    this.calling = false;
    if (!stream || !this.ua) return;
    this.holdOthers();
    this.forgetMissed(number);
    const options = { mediaStream: stream, pcConfig: { iceServers: [] } };
    // Asterisk reads + and # as they are.
    const session = this.ua.call(`sip:${encodeURIComponent(number)}@${location.hostname}`, options);
    const call = this.calls.find((one) => one.session === session);
    call.stream = stream;
    return call;
  }

  /** One call is heard at a time. */
  holdOthers(call) {
    for (const other of this.calls) if (other !== call) other.hold(true);
  }

  async openMicrophone() {
    try {
      const stream = await this.microphone.open();
      this.microphoneProblem = null;
      return stream;
    } catch (error) {
      const names = { NotAllowedError: "microphoneRefused", NotFoundError: "noMicrophone" };
      this.microphoneProblem = names[error.name] || "microphoneBusy";
      return null;
    } finally {
      this.changed();
    }
  }

  /** Use another microphone, also in the calls that are up. */
  async chooseMicrophone(id) {
    this.microphone.choose(id);
    for (const call of this.calls.filter((one) => one.stream)) {
      const stream = await this.openMicrophone();
      if (!stream) return;
      const [track] = stream.getAudioTracks();
      const sender = call.session.connection.getSenders().find((one) => one.track?.kind === "audio");
      track.enabled = sender.track.enabled;
      await sender.replaceTrack(track);
      call.stream.getTracks().forEach((old) => old.stop());
      call.stream = stream;
    }
  }

  chooseSpeaker(id) {
    this.speaker = id;
    for (const call of this.calls) this.useSpeaker(call.audio);
  }

  useSpeaker(audio) {
    if (this.speaker || audio.sinkId) audio.setSinkId?.(this.speaker).catch(() => this.say(words("noSpeaker"), true));
  }

  /** Message waiting (RFC 3842), which the exchange sends to a registered phone. */
  summary(body) {
    const [, fresh, old] = /^Voice-Message:\s*(\d+)\/(\d+)/im.exec(body) || [];
    const [, number] = /^Message-Account:\s*sips?:([^@;>\s]+)/im.exec(body) || [];
    const before = this.voicemail?.fresh || 0;
    this.voicemail = { fresh: Number(fresh || 0), old: Number(old || 0), number: number || "" };
    if (this.voicemail.fresh > before) this.say(words("newVoicemail", { count: this.voicemail.fresh }));
  }

  get missedKey() {
    return `phone.missed.${this.number}`;
  }

  remember({ number, name, began }) {
    this.missedCalls = [{ number, name, at: began }, ...this.missedCalls].slice(0, 50);
    this.keepMissed();
    this.say(words("missed", { number, name }));
  }

  /** Take the calls of a number, or all, from the list of missed calls. */
  forgetMissed(number) {
    this.missedCalls = number ? this.missedCalls.filter((call) => call.number !== number) : [];
    this.keepMissed();
    this.changed();
  }

  keepMissed() {
    try {
      sessionStorage.setItem(this.missedKey, JSON.stringify(this.missedCalls));
    } catch {
      // Storage is off: the list lasts as long as the page.
    }
  }
}

function read(key) {
  try {
    return JSON.parse(sessionStorage.getItem(key)) || [];
  } catch {
    return [];
  }
}
