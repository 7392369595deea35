// The place of the browser phone, whose module is loaded when it is opened for the first time.

import { Component, html } from "../vendor/htm-preact-standalone.module.js";
import { language, t } from "../language.js";
import { Heading } from "../parts.js";

/** Stays where it is, unseen, while another view is open: a call goes on. */
export class Phone extends Component {
  async componentDidMount() {
    try {
      const { mountPhone } = await import("../phone/phone.js");
      if (!this.gone)
        this.phone = mountPhone(this.base.querySelector("#phone"), { language, onState: this.props.onState });
    } catch (error) {
      console.error(error);
      this.setState({ failed: true });
    }
  }

  componentDidUpdate(previous) {
    if (previous.language !== this.props.language) this.phone?.setLanguage?.(this.props.language);
  }

  componentWillUnmount() {
    this.gone = true;
    this.phone?.unmount?.();
  }

  render({ hidden }, { failed }) {
    return html`<div hidden=${hidden}>
      <${Heading} id="phone-heading" text=${t("view.phone")} />
      ${failed && html`<p class="error" role="alert">${t("phone.failed")}</p>`}
      <div id="phone" />
    </div>`;
  }
}
