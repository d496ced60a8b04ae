// How the connection is and what is being written, always in view; and how fast, where the model is described.

import { t } from "./i18n.js";

const INTERVAL = 250; // milliseconds between two updates of the speed

export class Status {
	#options;
	#timer = 0;

	/** @param {StatusOptions} options */
	constructor(options) {
		this.#options = options;
	}

	/**
	 * Shows a state of the session, with its last figures when it has ended.
	 * @param {State} name @param {StateValues | null} values
	 */
	show(name, values = null) {
		const { state, text } = this.#options;
		state.dataset.state = name;
		state.textContent = t(`state_${name}`, { seconds: { value: values?.seconds ?? 0, digits: 1 } });
		text.textContent = describe(values ?? {});
		clearInterval(this.#timer);
		if (name === "writing") this.#timer = setInterval(() => this.#refresh(), INTERVAL);
		if (values?.count) this.#offerSeed(values.seed ?? 0);
	}

	#refresh() {
		const figures = this.#options.figures();
		if (figures && figures.first !== null) this.#options.text.textContent = describe(figures);
	}

	/** Offers to keep a seed for the next request. @param {number} seed */
	#offerSeed(seed) {
		const button = this.#options.seed;
		button.hidden = false;
		button.value = String(seed);
		button.textContent = t("keep_seed", { seed: String(seed) });
	}
}

/** @param {Partial<Figures>} figures */
function describe({ count, speed = 0, first, seed }) {
	return count ? t("figures", { count, speed, first: 1000 * (first ?? 0), seed: String(seed) }) : "";
}
