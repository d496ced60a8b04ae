// The line that is always in view: whether the server is heard, what is being written and how fast.

import { t } from "./i18n.js";

const EVERY = 250; // milliseconds between two looks at the speed

export class Status {
  #timer = 0;

  /** `figures()` gives what session.js tells while it writes, or null. */
  constructor({ state, text, seed, figures }) {
    Object.assign(this, { state, text, seed, figures });
  }

  /** Shows a state of the session, with its last figures when it has ended. */
  show(state, values = null) {
    this.state.dataset.state = state;
    this.state.textContent = t(`state_${state}`, { seconds: { value: values?.seconds ?? 0, digits: 1 } });
    this.text.textContent = values?.count === undefined ? "" : this.#describe(values);
    clearInterval(this.#timer);
    if (state === "writing") this.#timer = setInterval(() => this.#refresh(), EVERY);
    if (values?.count) this.#offer(values.seed);
  }

  #refresh() {
    const figures = this.figures();
    if (figures?.first != null) this.text.textContent = this.#describe(figures);
  }

  #describe({ count, speed, first, seed }) {
    if (!count) return "";
    return t("figures", { count, speed, first: 1000 * first, seed: String(seed) });
  }

  /** The seed can be kept for the next time. */
  #offer(seed) {
    this.seed.hidden = false;
    this.seed.value = seed;
    this.seed.textContent = t("keep_seed", { seed: String(seed) });
  }
}
