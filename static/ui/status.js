// How the connection is and what is being written, always in view; and how fast, where the model is described.

import { make } from "./dom.js";
import { t } from "./i18n.js";

const INTERVAL = 250; // milliseconds between two updates of the speed, or of a countdown

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
		state.textContent = t(`state_${name}`, { place: values?.place ?? 0 });
		text.textContent = describe(values ?? {});
		clearInterval(this.#timer);
		if (name === "writing") this.#timer = setInterval(() => this.#refresh(), INTERVAL);
		if (values?.seconds) this.#countDown(values.seconds);
		if (values?.count) this.#offerSeed(values.seed ?? 0);
	}

	/** Shows how long it takes to the next attempt; a screen reader would say every second. @param {number} seconds */
	#countDown(seconds) {
		const end = performance.now() + 1000 * seconds;
		const rest = make("span");
		rest.setAttribute("aria-hidden", "true");
		const show = () => {
			const left = Math.max(1, Math.ceil((end - performance.now()) / 1000));
			rest.textContent = ` ${t("in_seconds", { seconds: left })}`;
		};
		show();
		this.#options.state.append(rest);
		this.#timer = setInterval(show, INTERVAL);
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
