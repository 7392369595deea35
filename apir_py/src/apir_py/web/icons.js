// Drawings of 24 × 24, one stroke each; they never carry meaning alone.

import { html } from "./vendor/htm-preact-standalone.module.js";

const PHONE = "M6.5 3.5h3l1.5 4-2 1.5a12 12 0 0 0 6 6l1.5-2 4 1.5v3a2 2 0 0 1-2 2A16 16 0 0 1 4.5 5.5a2 2 0 0 1 2-2Z";
const PATHS = {
  calls: "M4 8h13m-3-3 3 3-3 3M20 16H7m3-3-3 3 3 3",
  phones: "M3.5 12c-1-8 18-8 17 0H16v-2H8v2zM7 14h10l2.5 6h-15zM12 17h.01",
  queues: "M4 6h3M4 12h3M4 18h3M10 6h10M10 12h10M10 18h10",
  agents: "M5 14v-2a7 7 0 0 1 14 0v2M5 14h2.5v4H5zM16.5 14H19v4h-2.5zM17.5 18c0 2-2 3-4 3",
  conferences: "M9 11a3 3 0 1 0 0-6 3 3 0 0 0 0 6ZM3 19a6 6 0 0 1 12 0M16 11a2.5 2.5 0 1 0-1.5-4.5M17 14a5 5 0 0 1 4 5",
  voicemail: "M7 15.5a3.5 3.5 0 1 0 0-7 3.5 3.5 0 0 0 0 7ZM17 15.5a3.5 3.5 0 1 0 0-7 3.5 3.5 0 0 0 0 7ZM7 15.5h10",
  records: "M6 3.5h9l4 4v13H6zM9 11h7M9 15h7",
  phone: PHONE,
  alert: "M12 4 2.5 20h19ZM12 10v4.5M12 17.2h.01",
  back: "M5 12.5 10 17.5 19.5 7",
};

export function Icon({ name }) {
  return html`<svg class="icon" viewBox="0 0 24 24" aria-hidden="true"><path d=${PATHS[name]} /></svg>`;
}
