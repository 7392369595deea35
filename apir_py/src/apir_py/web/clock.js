// Time as the exchange's host has it, and the durations that are shown: one timer writes them all once a second.

const DELAY = 1500; // ms

let offset = 0;
let stopped = null;
let pause = 0;
const shown = new Map();
const visible = new Set();

/** Take the host's time from a message (`at`), unless the difference is only the message's delay. */
export function setClock(at) {
  const found = Date.parse(at) - Date.now();
  if (Math.abs(found - offset) > DELAY) offset = found;
}

/** Milliseconds of the host's clock. */
export function hostNow() {
  return stopped ?? Date.now() + offset;
}

/** Hold all durations where they are: what is shown is no longer known to go on. */
export function stopClock() {
  stopped ??= Date.now() + offset;
}

/** Let durations run again. */
export function runClock() {
  stopped = null;
  writeAll();
}

/** Seconds as 0:07, 12:34 or 1:02:03. */
export function duration(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  const [h, m, s] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  const two = (number) => String(number).padStart(2, "0");
  return h ? `${h}:${two(m)}:${two(s)}` : `${m}:${two(s)}`;
}

/** Write into `element` how long ago `since` (ms) is, now and each second; gives the function that ends it. */
export function showSince(element, since) {
  shown.set(element, since);
  write(element, since, hostNow());
  observer.observe(element);
  return () => {
    observer.unobserve(element);
    visible.delete(element);
    shown.delete(element);
  };
}

// With hundreds of calls, writing what nobody sees would make scrolling falter each second. What comes into sight is
// written when scrolling pauses.
const observer = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    if (!shown.has(target)) continue;
    if (isIntersecting) visible.add(target);
    else visible.delete(target);
  }
  clearTimeout(pause);
  pause = setTimeout(writeAll, 100);
});

function write(element, since, now) {
  const text = duration((now - since) / 1000);
  if (element.textContent !== text) element.textContent = text;
}

function writeAll() {
  const now = hostNow();
  for (const element of visible) write(element, shown.get(element), now);
}

setInterval(() => {
  if (stopped === null && !document.hidden) writeAll();
}, 1000);
document.addEventListener("visibilitychange", () => document.hidden || writeAll());
