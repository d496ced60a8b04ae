// The dialog of play: guess the next letter, or compare. Owns the switch between the two; what they do is their own.

import { loadRecording } from "../api/recording.js";
import { requestOf } from "../session.js";
import { make, makeButton } from "../ui/dom.js";
import { t } from "../ui/i18n.js";
import { settings } from "../ui/settings_form.js";
import { ComparePanel } from "./compare.js";
import { GuessPanel } from "./guess.js";

const DEFAULT_SEED = 1337; // of a comparison, where nothing was written yet
const MIN_GUESSED = 80; // characters of a text that letters are guessed of

export class PlayDialog {
	#dialog = make("dialog", "stage-dialog");
	#games;

	#card;
	#tree;

	/** @param {Pick<PlayOptions, "card" | "classify"> & { tree: BranchTree }} options */
	constructor({ card, tree, classify }) {
		this.#card = card;
		this.#tree = tree;
		/** @type {PlayOptions} */
		const options = {
			card,
			settings,
			classify,
			characters: () => this.#characters(),
			beginning: () => this.#beginning(),
			onKeep: (texts) => this.#addTexts(texts),
		};
		this.#dialog.id = "play";
		const title = make("h2", "", t("play_title"));
		title.id = "play-title";
		this.#dialog.setAttribute("aria-labelledby", title.id);
		this.#games = [
			this.#makeGame("play_guess", new GuessPanel(options)),
			this.#makeGame("play_compare", new ComparePanel(options)),
		];
		const head = make("header", "bar");
		const choice = make("div", "choice");
		choice.setAttribute("role", "group");
		choice.setAttribute("aria-label", t("play_title"));
		choice.append(...this.#games.map(({ button }) => button));
		const close = makeButton("quiet close", "×", () => this.#dialog.close());
		close.setAttribute("aria-label", t("play_close"));
		head.append(title, choice, close);
		this.#dialog.append(head, ...this.#games.map(({ panel }) => panel.element));
		this.#dialog.addEventListener("close", () => {
			for (const { panel } of this.#games) panel.close();
		});
		document.body.append(this.#dialog);
	}

	open() {
		this.#dialog.showModal();
		this.#show(this.#games.find(({ panel }) => !panel.element.hidden) ?? this.#games[0]);
	}

	/** The characters of the active text that the model can read; of the recording, while that text is short. */
	async #characters() {
		const { vocabulary } = this.#card;
		const own = Array.from(this.#tree.active.doc.text).filter((c) => vocabulary.includes(c));
		if (own.length >= MIN_GUESSED) return own;
		const recording = await loadRecording(this.#card);
		if (!recording) return own;
		const written = recording.events.map(({ event, data }) => (event === "text" ? data.text : ""));
		return Array.from(recording.prompt + written.join(""));
	}

	/** What the active text began with, and its luck. */
	#beginning() {
		const { active } = this.#tree;
		const request = requestOf(active);
		return { prefix: request?.prefix ?? active.doc.text, seed: request?.seed ?? DEFAULT_SEED };
	}

	/** Puts texts on the page, side by side. @param {Cell[][]} texts */
	#addTexts(texts) {
		this.#dialog.close();
		const [first] = texts.map((cells) => this.#tree.add([...cells]));
		this.#tree.activate(first);
		this.#tree.setSideBySide(true);
	}

	/** @param {string} key @param {Played["panel"]} panel @returns {Played} */
	#makeGame(key, panel) {
		const button = makeButton("quiet", t(key), () => this.#show(game));
		const game = { button, panel };
		panel.element.hidden = key !== "play_guess";
		return game;
	}

	/** @param {Played} shown */
	#show(shown) {
		for (const game of this.#games) {
			const { button, panel } = game;
			const chosen = game === shown;
			button.setAttribute("aria-pressed", String(chosen));
			panel.element.hidden = !chosen;
			if (!chosen) panel.close();
		}
		shown.panel.open();
	}
}

/** @typedef {{ button: HTMLButtonElement, panel: { element: HTMLElement, open: () => void, close: () => void } }} Played */
