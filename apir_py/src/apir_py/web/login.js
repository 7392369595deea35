// The form to log in with.

import { html, useEffect, useRef, useState } from "./vendor/htm-preact-standalone.module.js";
import { Icon } from "./icons.js";
import { request } from "./http.js";
import { t } from "./language.js";
import { LanguageSwitch } from "./notices.js";

/** `reason` is a text's key that says why the form is there, onDone is called after a login, onLanguage(code). */
export function Login({ reason, onDone, onLanguage }) {
  const [error, setError] = useState(null);
  const [busy, setBusy] = useState(false);
  const user = useRef();
  const password = useRef();
  useEffect(() => {
    document.title = `${t("login")} · labredes.pbx`;
  });
  useEffect(() => user.current.focus(), []);

  async function submit(event) {
    event.preventDefault();
    setBusy(true);
    const body = { user: user.current.value, password: password.current.value };
    const { status, wait } = await request("POST", "login", body);
    setBusy(false);
    if (status === 200) return onDone();
    setError(failure(status, wait));
    password.current.select();
    password.current.focus();
    return undefined;
  }

  return html`<main class="login">
    <form onSubmit=${submit} aria-labelledby="heading">
      <p class="brand"><${Icon} name="calls" /> <span translate=${false}>labredes.pbx</span></p>
      <h1 id="heading">${t("login.heading")}</h1>
      ${reason && html`<p class="note">${t(reason)}</p>`}
      <label for="user">${t("login.user")}</label>
      <input id="user" name="username" ref=${user} autocomplete="username" autocapitalize="none" spellcheck=${false}
        required aria-describedby="error" />
      <label for="password">${t("login.password")}</label>
      <input id="password" name="password" type="password" ref=${password} autocomplete="current-password" required
        aria-describedby="error" aria-invalid=${error ? "true" : "false"} />
      <p id="error" class="error" role="alert">${error && html`<${Icon} name="alert" /> ${t(error.key, error)}`}</p>
      <button type="submit" class="primary" disabled=${busy}>${t(busy ? "login.busy" : "login")}</button>
    </form>
    <${LanguageSwitch} onLanguage=${onLanguage} />
  </main>`;
}

function failure(status, wait) {
  if (status === 401) return { key: "login.wrong" };
  if (status === 429) return wait ? { key: "login.limited", n: wait } : { key: "login.later" };
  if (status === 0) return { key: "login.unreachable" };
  return { key: "login.failed", status };
}
