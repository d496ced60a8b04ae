// From gibberish to verse: the same prompt and the same seed at each snapshot of a training run, under a slider.

import { get } from "../api/sse.js";
import { find } from "../ui/dom.js";
import { t } from "../ui/i18n.js";
import { messageOf, Retry } from "../ui/retry.js";
import { drawCurve } from "./model_card.js";

export class SnapshotPanel {
	#box;
	#query;
	#slider;
	#status;
	#retry;
	/** @type {SnapshotAnswer | null} */
	#answer = null;
	/** The query of the answer, as JSON. */
	#answered = "";
	#requesting = false;

	/**
	 * `query()` gives the parameters of /snapshots.
	 * @param {HTMLElement} box @param {{ query: () => Record<string, string> }} options
	 */
	constructor(box, { query }) {
		this.#box = box;
		this.#query = query;
		this.#slider = find(box, "input");
		this.#status = find(box, "[role=status]");
		this.#retry = new Retry(this.#status);
		find(box, "button").addEventListener("click", () => this.#request());
		this.#slider.addEventListener("input", () => this.#show());
	}

	/** Requests the texts, unless they are there or requested already. */
	open() {
		if (!this.#answer && !this.#requesting) this.#request();
	}

	/** Shows whether the texts are of the prompt and the settings of now. */
	update() {
		if (!this.#answer || this.#requesting) return;
		const { parameters } = this.#answer;
		const same = this.#answered === JSON.stringify(this.#query());
		const message = same ? t("growth_about", { parameters }) : t("growth_stale");
		if (this.#status.textContent !== message) this.#status.textContent = message;
	}

	async #request() {
		const query = this.#query();
		const path = `/snapshots?${new URLSearchParams(query)}`;
		this.#requesting = true;
		try {
			/** @type {SnapshotAnswer | null} */
			const answer = await this.#retry.run((signal) => get(path, signal));
			if (!answer) return; // another request has taken its place
			this.#requesting = false;
			this.#answer = answer;
			this.#answered = JSON.stringify(query);
			this.#slider.max = String(answer.snapshots.length - 1);
			this.#slider.value = this.#slider.max;
			this.#slider.disabled = false;
			this.update();
			this.#show();
		} catch (error) {
			this.#requesting = false;
			this.#status.textContent = messageOf(error);
		}
	}

	#show() {
		if (!this.#answer) return;
		const { step, text } = this.#answer.snapshots[Number(this.#slider.value)];
		const label = t("after_steps", { count: step });
		this.#slider.setAttribute("aria-valuetext", label);
		find(this.#box, "output").textContent = label;
		find(this.#box, ".grown").textContent = text;
		find(this.#box, ".curve").replaceChildren(drawCurve(this.#answer.curve, step));
	}
}
