// Growing up: the same prompt and the same seed at each snapshot of a training run, as cards side by side; a slider walks
// through them, and so does the button that plays them.

import { find, make } from "../ui/dom.js";
import { t } from "../ui/i18n.js";
import { messageOf, Retry } from "../ui/retry.js";
import { snapshotsOf } from "./answers.js";
import { drawCurve } from "./model_card.js";

const MAX_PROMPT = 60; // characters of the prompt that each card repeats
const LAST_LINES = /(?:[^\n]*\n*){1,2}$/; // of them
const PLAY_INTERVAL = 1600; // milliseconds between two stages

export class SnapshotPanel {
	#box;
	#card;
	#query;
	#slider;
	#status;
	#retry;
	/** @type {SnapshotAnswer | null} */
	#answer = null;
	/** The query of the answer, as JSON. */
	#answered = "";
	#requesting = false;
	#play;
	#timer = 0;

	/**
	 * `query()` gives the parameters of /snapshots.
	 * @param {HTMLElement} box @param {{ card: ModelCard, query: () => Record<string, string> }} options
	 */
	constructor(box, { card, query }) {
		this.#box = box;
		this.#card = card;
		this.#query = query;
		this.#slider = find(box, "input");
		this.#status = find(box, "[role=status]");
		this.#retry = new Retry(this.#status);
		this.#play = /** @type {HTMLButtonElement} */ (find(box, "[name=play]"));
		this.#play.addEventListener("click", () => this.#start());
		find(box, "[name=again]").addEventListener("click", () => this.#request());
		this.#slider.addEventListener("input", () => {
			this.#stop();
			this.#show(true);
		});
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
		this.#requesting = true;
		try {
			/** @type {SnapshotAnswer | null} */
			const answer = await this.#retry.run((signal) => snapshotsOf(query, this.#card, signal));
			if (!answer) return; // another request has taken its place
			this.#requesting = false;
			this.#answer = answer;
			this.#answered = JSON.stringify(query);
			this.#slider.max = String(answer.snapshots.length - 1);
			this.#slider.value = this.#slider.max;
			this.#slider.disabled = false;
			this.#play.disabled = false;
			this.update();
			this.#drawStages(query.prompt ?? "");
			this.#show();
		} catch (error) {
			this.#requesting = false;
			this.#status.textContent = messageOf(error);
		}
	}

	/** Shows the stages one after another, from the first on. */
	#start() {
		this.#stop();
		this.#slider.value = "0";
		this.#show(true);
		this.#timer = setInterval(() => {
			this.#slider.stepUp();
			this.#show(true);
			if (this.#slider.value === this.#slider.max || this.#box.hidden) this.#stop();
		}, PLAY_INTERVAL);
	}

	#stop() {
		clearInterval(this.#timer);
	}

	/** Draws a card for each stage: its step, the prompt and what was written. @param {string} prompt */
	#drawStages(prompt) {
		if (!this.#answer) return;
		const { snapshots } = this.#answer;
		const end = Array.from(prompt).slice(-MAX_PROMPT).join("");
		const last = end.match(LAST_LINES)?.[0] ?? end;
		const shown = last.length < prompt.length ? `…${last.trimStart()}` : last;
		const cards = snapshots.map(({ step, text }) => {
			const card = make("article", "stage");
			const heading = make("h3", "", t("after_steps", { count: step }));
			const grown = make("p", "grown");
			grown.append(make("b", "", shown), text);
			card.append(heading, grown);
			return card;
		});
		find(this.#box, ".stages").replaceChildren(...cards);
	}

	/** Shows the stages up to the slider's; with `follow`, scrolls to the last of them. */
	#show(follow = false) {
		if (!this.#answer) return;
		const at = Number(this.#slider.value);
		const { step } = this.#answer.snapshots[at];
		const label = t("after_steps", { count: step });
		this.#slider.setAttribute("aria-valuetext", label);
		find(this.#box, "output").textContent = label;
		const { children } = find(this.#box, ".stages");
		for (const [i, card] of [...children].entries()) {
			card.classList.toggle("later", i > at);
			if (i === at) card.setAttribute("aria-current", "step");
			else card.removeAttribute("aria-current");
		}
		find(this.#box, ".curve").replaceChildren(drawCurve(this.#answer.curve, step));
		if (follow) children[at].scrollIntoView({ block: "nearest" });
	}
}
