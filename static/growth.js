// From gibberish to verse: the same prompt and the same luck at each snapshot of a training run, under a slider.

import { drawCurve } from "./card.js";
import { ProblemError, send } from "./sse.js";
import { number, t } from "./texts.js";

export class Growth {
  #answer = null;

  /** `asked()` gives the parameters of /snapshots. */
  constructor(box, { asked }) {
    Object.assign(this, { box, asked });
    this.slider = box.querySelector("input");
    box.querySelector("button").addEventListener("click", () => this.#write());
    this.slider.addEventListener("input", () => this.#show());
    this.#write();
  }

  async #write() {
    const status = this.box.querySelector("[role=status]");
    status.textContent = t("asking");
    try {
      const response = await send(`/snapshots?${new URLSearchParams(this.asked())}`);
      const answer = await response.json();
      if (!response.ok) throw new ProblemError(answer);
      this.#answer = answer;
      this.slider.max = answer.snapshots.length - 1;
      this.slider.value = this.slider.max;
      this.slider.disabled = false;
      status.textContent = t("growth_about", { parameters: number(answer.parameters) });
      this.#show();
    } catch (error) {
      status.textContent = error.problem?.detail ?? t("lost");
    }
  }

  #show() {
    const { step, text } = this.#answer.snapshots[this.slider.value];
    const label = t("after_steps", { count: number(step) });
    this.slider.setAttribute("aria-valuetext", label);
    this.box.querySelector("output").textContent = label;
    this.box.querySelector(".grown").textContent = text;
    this.box.querySelector(".curve").replaceChildren(drawCurve(this.#answer.curve, step));
  }
}
