// A request that is repeated until the server answers it: it may be away, or busy, just when a panel is opened.

import { FIRST_WAIT, MAX_WAIT, ProblemError, isTemporary } from "../api/sse.js";
import { makeButton } from "./dom.js";
import { t } from "./i18n.js";

export class Retry {
	#element;
	#controller = new AbortController();
	#wake = () => {};

	/** `element` shows what is going on until there is an answer. @param {HTMLElement} element */
	constructor(element) {
		this.#element = element;
	}

	/**
	 * The answer of `attempt(signal)`, which is called again for as long as the server cannot be reached or is busy; null
	 * after `stop`, or when another request has taken its place. Throws the other errors of `attempt`.
	 * @template T @param {(signal: AbortSignal) => Promise<T>} attempt
	 */
	async run(attempt) {
		this.stop();
		this.#controller = new AbortController();
		const { signal } = this.#controller;
		this.#element.textContent = t("asking");
		for (let wait = FIRST_WAIT; ; wait = Math.min(2 * wait, MAX_WAIT)) {
			try {
				const answer = await attempt(signal);
				return signal.aborted ? null : answer;
			} catch (error) {
				if (signal.aborted) return null;
				const problem = error instanceof ProblemError && isTemporary(error) ? error.problem : null;
				const temporary = problem !== null;
				// What fetch, import and reading an answer throw without a connection. So does a mistake in our code.
				const away = error instanceof TypeError;
				if (!temporary && !away) throw error;
				if (away) console.warn(error);
				this.#show(t(temporary ? "busy_again" : "away"));
				await this.#pause(Math.max(wait, 1000 * (problem?.retry_after ?? 0)));
				if (signal.aborted) return null;
			}
		}
	}

	/** Gives the request up, if there is one. */
	stop() {
		this.#controller.abort();
		this.#wake();
	}

	/** Shows a message once, not at each attempt: a screen reader reads every change. @param {string} message */
	#show(message) {
		if (this.#element.firstChild?.textContent === message) return;
		this.#element.replaceChildren(
			message,
			" ",
			makeButton("quiet", t("ask_now"), () => this.#wake()),
		);
	}

	/** @param {number} milliseconds @returns {Promise<void>} */
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

/** What to show of an error that ended a request. @param {unknown} error */
export function messageOf(error) {
	return (error instanceof ProblemError ? error.problem.detail : null) ?? t("page_error");
}
