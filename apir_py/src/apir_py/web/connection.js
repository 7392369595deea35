// The WebSocket to the service, which comes back by itself.

import { request } from "./http.js";

const LONGEST_DELAY = 30; // seconds
const HELLO_WITHIN = 10_000; // ms
const CHECK_EVERY = 30_000; // ms
const SESSION_ENDED = 4001;
const TOO_SLOW = 4008;

/**
 * Calls on.message(object) for each line, on.lost({ missed }) each time a connection or an attempt has failed
 * (`missed`: the service dropped us for being slow), and on.ended() when the session is over.
 */
export class Connection {
  constructor(on) {
    this.on = on;
    this.running = false;
    this.attempts = 0;
    this.wake = () => document.hidden || (this.socket ? this.check() : this.now());
  }

  start() {
    this.running = true;
    for (const event of ["online", "offline", "focus"]) addEventListener(event, this.wake);
    document.addEventListener("visibilitychange", this.wake);
    this.checks = setInterval(() => this.socket && this.check(), CHECK_EVERY);
    this.connect();
  }

  stop() {
    this.running = false;
    for (const event of ["online", "offline", "focus"]) removeEventListener(event, this.wake);
    document.removeEventListener("visibilitychange", this.wake);
    clearInterval(this.checks);
    clearTimeout(this.retry);
    this.drop();
  }

  /** Try again now instead of when it is due. */
  now() {
    if (!this.running || this.socket || this.asking) return;
    clearTimeout(this.retry);
    this.connect();
  }

  async connect() {
    this.asking = true;
    const { status, data, wait } = await request("POST", "ticket");
    this.asking = false;
    if (!this.running) return;
    if (status === 401) return this.end();
    if (status !== 200 || !data) return this.lost({}, wait);
    const url = new URL(`api?ticket=${encodeURIComponent(data.ticket)}&messages=state`, location.href);
    url.protocol = url.protocol.replace("http", "ws");
    url.hash = "";
    const socket = (this.socket = new WebSocket(url));
    const timer = setTimeout(() => this.lost({}), HELLO_WITHIN);
    socket.onmessage = ({ data: text }) => {
      clearTimeout(timer);
      this.greeted ??= Date.now();
      for (const line of text.split("\n")) {
        const message = parse(line);
        if (message?.v === 1) this.on.message(message);
      }
    };
    socket.onclose = ({ code }) => {
      clearTimeout(timer);
      if (code === SESSION_ENDED) this.end();
      else this.lost({ missed: code === TOO_SLOW });
    };
  }

  lost(how, wait = 0) {
    // Only a connection that held counts as a success; one that ends at once would otherwise be tried every second.
    if (this.greeted && Date.now() - this.greeted > 5000) this.attempts = 0;
    this.drop();
    const delay = Math.max(wait, Math.min(LONGEST_DELAY, 2 ** this.attempts)) * (1 + Math.random() * 0.3);
    this.attempts = Math.min(this.attempts + 1, 5);
    clearTimeout(this.retry);
    this.retry = setTimeout(() => this.connect(), delay * 1000);
    this.on.lost(how);
  }

  end() {
    this.stop();
    this.on.ended();
  }

  drop() {
    this.greeted = undefined;
    if (!this.socket) return;
    this.socket.onmessage = this.socket.onclose = null;
    this.socket.close();
    this.socket = null;
  }

  /** A connection that died without a word, as after a laptop's sleep, is noticed here. */
  async check() {
    if (this.checking) return;
    this.checking = true;
    const checked = this.socket;
    const { status } = await request("GET", "session");
    this.checking = false;
    if (!this.running || checked !== this.socket) return;
    if (status === 401) this.end();
    else if (status === 0) this.lost({});
  }
}

function parse(line) {
  try {
    return JSON.parse(line);
  } catch {
    return null;
  }
}
