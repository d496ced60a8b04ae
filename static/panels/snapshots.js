// From gibberish to verse: the same prompt and the same luck at each snapshot of a training run, under a slider.

import { drawCurve } from "./model_card.js";
import { Patience } from "../ui/retry.js";
import { get } from "../api/sse.js";
import { t } from "../ui/i18n.js";

export class Growth {
  #answer = null;
  #of = ""; // what the answer is about
  #asking = false;

  /** `asked()` gives the parameters of /snapshots. */
  constructor(box, { asked }) {
    Object.assign(this, { box, asked });
    this.slider = box.querySelector("input");
    this.status = box.querySelector("[role=status]");
    this.patience = new Patience(this.status);
    box.querySelector("button").addEventListener("click", () => this.#write());
    this.slider.addEventListener("input", () => this.#show());
  }

  /** Asks, unless it has been answered or asks already. */
  open() {
    if (!this.#answer && !this.#asking) this.#write();
  }

  /** Says so when what is shown is not of the text and the settings that are there now. */
  update() {
    if (!this.#answer || this.#asking) return;
    const { parameters } = this.#answer;
    const same = this.#of === JSON.stringify(this.asked());
    const message = same ? t("growth_about", { parameters }) : t("growth_stale");
    if (this.status.textContent !== message) this.status.textContent = message;
  }

  async #write() {
    const asked = this.asked();
    this.#asking = true;
    try {
      const answer = await this.patience.ask((signal) => get(`/snapshots?${new URLSearchParams(asked)}`, signal));
      if (!answer) return; // another one has been asked for
      this.#asking = false;
      this.#answer = answer;
      this.#of = JSON.stringify(asked);
      this.slider.max = answer.snapshots.length - 1;
      this.slider.value = this.slider.max;
      this.slider.disabled = false;
      this.update();
      this.#show();
    } catch (error) {
      this.#asking = false;
      this.status.textContent = error.problem?.detail ?? t("page_error");
    }
  }

  #show() {
    const { step, text } = this.#answer.snapshots[this.slider.value];
    const label = t("after_steps", { count: step });
    this.slider.setAttribute("aria-valuetext", label);
    this.box.querySelector("output").textContent = label;
    this.box.querySelector(".grown").textContent = text;
    this.box.querySelector(".curve").replaceChildren(drawCurve(this.#answer.curve, step));
  }
}
