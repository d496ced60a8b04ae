// Type and see: what the model expects at the caret, while someone types or walks through the text with keys.

import { score } from "../api/score.js";
import { MAX_WAIT, ProblemError } from "../api/sse.js";
import { make, makeButton } from "../ui/dom.js";
import { glyph, t } from "../ui/i18n.js";
import { drawLetter } from "./bars.js";

const DELAY = 200; // milliseconds without another key
const ROWS = 6; // letters that are shown
const CONTEXT = 16; // characters before the caret that are repeated

export class TypeAndSee {
	element = make("div", "ahead");
	#options;
	#timer = 0;
	#controller = new AbortController();
	/** When a server that refused may be asked again, as of `performance.now()`. */
	#notBefore = 0;

	/** @param {TypeAndSeeOptions} options */
	constructor(options) {
		this.#options = options;
		this.element.hidden = true;
		this.element.setAttribute("role", "group");
		document.addEventListener("selectionchange", () => this.look());
	}

	/** Shows nothing any more: a letter is looked at, or the model writes. */
	hide() {
		clearTimeout(this.#timer);
		this.#controller.abort();
		if (this.element.hidden) return;
		this.element.hidden = true;
		this.#options.onShow();
	}

	/** The text or the caret has changed: looks there as soon as no other key follows. */
	look() {
		clearTimeout(this.#timer);
		this.#controller.abort(); // what it was about is no more
		const may = this.#options.mayShow() && performance.now() >= this.#notBefore;
		const place = may ? this.#place() : null;
		if (place) this.#timer = setTimeout(() => this.#request(place), DELAY);
		else if (!this.element.contains(document.activeElement)) this.hide();
	}

	/** The text before the caret, or null while there is none. */
	#place() {
		const { editor, doc } = this.#options.active();
		const selected = editor.selection();
		if (!editor.root.contains(document.activeElement)) return null;
		if (!selected || selected.start !== selected.end) return null;
		return { before: doc.cells.slice(0, selected.start).map(({ c }) => c), index: selected.start };
	}

	/** @param {{ before: string[], index: number }} place */
	async #request({ before, index }) {
		if (!this.#options.mayShow()) return; // a pointer has done something since
		const { block_size, default_prompt, vocabulary } = this.#options.card;
		if (before.some((c) => !vocabulary.includes(c))) {
			this.hide();
			return;
		}
		const controller = new AbortController();
		this.#controller = controller;
		const prompt = before.slice(-block_size).join("") || default_prompt;
		const [any] = vocabulary; // a text of one letter: what it would be is what is asked for
		const body = { prompt, text: any, first: 0, alternatives: ROWS };
		try {
			const { chars } = await score(body, this.#options.card, controller.signal, true);
			if (!controller.signal.aborted) this.#show(before, index, chars[0].alternatives);
		} catch (error) {
			if (error instanceof ProblemError) {
				const { retry_after = MAX_WAIT / 1000 } = error.problem; // it is busy, or wants a key
				this.#notBefore = performance.now() + 1000 * retry_after;
			}
			if (!controller.signal.aborted) this.hide(); // a key that comes later asks again
		}
	}

	/** @param {string[]} before @param {number} index @param {Character["alternatives"]} expected */
	#show(before, index, expected) {
		const last = before.slice(-CONTEXT).map((c) => (c === " " ? c : glyph(c)));
		const context = last.length ? `${before.length > CONTEXT ? "…" : ""}${last.join("")}` : t("why_start");
		const sentence = t("ahead", { before: context });
		const list = make("ul", "letters");
		for (const { char, prob } of expected) {
			const button = makeButton("choose", "", () => this.#options.onChoose(index, char));
			button.append(drawLetter(char, prob));
			list.appendChild(make("li")).append(button);
		}
		list.setAttribute("aria-label", t("ahead_list"));
		this.element.setAttribute("aria-label", t("ahead_list"));
		this.element.replaceChildren(make("p", "", sentence), list);
		this.element.hidden = false;
		this.#options.onShow();
	}
}
