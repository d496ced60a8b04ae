// A question that is asked until the server answers it: it may be away, or busy, just when a panel is opened.

import { ProblemError } from "../api/sse.js";
import { t } from "./i18n.js";

const FIRST_WAIT = 500; // milliseconds before it is asked again, twice as long before each other time
const LONGEST_WAIT = 5000;

export class Patience {
  #controller = new AbortController();
  #wake = () => {};

  /** `element` shows what is going on until there is an answer. */
  constructor(element) {
    this.element = element;
  }

  /**
   * The answer of `attempt(signal)`, which is called again for as long as the server cannot be reached or is busy; null
   * when another question has taken its place. Throws what `attempt` throws else.
   */
  async ask(attempt) {
    this.stop();
    this.#controller = new AbortController();
    const { signal } = this.#controller;
    this.element.textContent = t("asking");
    for (let wait = FIRST_WAIT; ; wait = Math.min(2 * wait, LONGEST_WAIT)) {
      try {
        const answer = await attempt(signal);
        return signal.aborted ? null : answer;
      } catch (error) {
        if (signal.aborted) return null;
        if (!passes(error)) throw error;
        this.#tell(t(error instanceof ProblemError ? "busy_again" : "away"));
      }
      await this.#pause(wait);
      if (signal.aborted) return null;
    }
  }

  /** Gives the question up, if there is one. */
  stop() {
    this.#controller.abort();
    this.#wake();
  }

  /** Said once, not at each attempt: a screen reader reads every change. */
  #tell(message) {
    if (this.element.firstChild?.textContent === message) return;
    const button = document.createElement("button");
    button.type = "button";
    button.className = "quiet";
    button.textContent = t("ask_now");
    button.addEventListener("click", () => this.#wake());
    this.element.replaceChildren(message, " ", button);
  }

  #pause(milliseconds) {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, milliseconds);
      this.#wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }
}

/** Whether what went wrong goes by itself: no network, or a server that is busy or away behind a proxy. */
function passes(error) {
  if (error instanceof ProblemError) return error.problem.status === 429 || error.problem.status >= 502;
  return error instanceof TypeError; // what fetch throws when it reaches nobody
}
