// The inspector: which character it shows, where it stands, and what it requests from the model. candidates.js draws its
// content.

import { post } from "../api/sse.js";
import { isAsWritten, textOf } from "../editor/document.js";
import { find, make } from "../ui/dom.js";
import { choice, number, spoken, t } from "../ui/i18n.js";
import { messageOf, Retry } from "../ui/retry.js";
import { drawCandidates, drawMarks, drawTitle } from "./candidates.js";

const GAP = 8; // pixels around it
const MIN_HEIGHT = 160; // pixels
const NEIGHBOURS = 4; // characters on each side that are scored along with one
const MAX_SCORED = 4096; // characters of a run that are scored again to look at its end
const SCORED_TAIL = 2048; // characters that are scored of a longer run

export class Inspector {
	#options;
	#characters;
	#ids;
	/** Raw probabilities by character id. @type {WeakMap<Cell, number[]>} */
	#probabilities = new WeakMap();
	#notice = make("p", "hint");
	#retry = new Retry(this.#notice);
	/** @type {Inspected | null} */
	at = null;

	/** @param {HTMLElement} element @param {InspectorOptions} options */
	constructor(element, options) {
		this.element = element;
		this.#options = options;
		this.#characters = Array.from(options.card.vocabulary);
		this.#ids = new Map(this.#characters.map((c, id) => [c, id]));
		element.addEventListener("keydown", (event) => this.#onKey(event));
	}

	get open() {
		return !this.element.hidden;
	}

	/**
	 * Shows the cell `index` of a text. A pinned one stays until it is closed.
	 * @param {Branch} branch @param {number} index @param {boolean} pinned
	 */
	async show(branch, index, pinned) {
		const cell = branch.doc.cells[index];
		if (!cell) {
			this.close();
			return;
		}
		const at = { branch, index, cell, pinned };
		this.at = at;
		this.#retry.stop();
		if (!cell.run) this.#probabilities.delete(cell); // the text before it may have been edited
		this.element.hidden = false;
		const readable = this.#ids.has(cell.c);
		this.#notice.textContent = readable ? "" : t("never_read");
		this.draw();
		if (this.#probabilities.has(cell) || !readable) return;
		try {
			const answered = await this.#retry.run((signal) => this.#requestScores(at, signal));
			if (answered && this.at?.cell === cell) this.draw();
		} catch (error) {
			if (this.at?.cell === cell) this.#notice.textContent = messageOf(error);
		}
	}

	close() {
		this.#retry.stop();
		this.at = null;
		this.element.hidden = true;
	}

	/** Draws what is known, with the settings of now. */
	draw() {
		if (!this.at) return;
		const { branch, index, cell } = this.at;
		const { settings, onChoose } = this.#options;
		const raw = this.#probabilities.get(cell);
		const ids = this.#ids;
		/** @type {HTMLElement[]} */
		const parts = [drawTitle(cell, raw, ids), ...drawMarks(cell)];
		if (!isAsWritten(branch.doc.cells, index)) parts.push(make("p", "hint", t("edited_before")));
		if (raw) {
			const choose = (/** @type {string} */ character) => onChoose(branch, index, character);
			const options = { cell, raw, settings: settings(), characters: this.#characters, ids, onChoose: choose };
			parts.push(...drawCandidates(options));
		} else parts.push(this.#notice);
		const focused = document.activeElement?.getAttribute("data-id") ?? null;
		this.element.replaceChildren(...parts);
		if (focused !== null) find(this.element, `[data-id="${CSS.escape(focused)}"]`)?.focus();
		this.position();
	}

	focus() {
		find(this.element, "button.candidate")?.focus();
	}

	/** A cell in words: "t, 62 percent, first choice". @param {Cell} cell */
	describe({ c, run, prob, rank }) {
		if (!run) return t("said_typed", { c: spoken(c) });
		const digits = prob < 0.1 ? 1 : 0;
		return t("said", { c: spoken(c), percent: number(100 * prob, digits), choice: choice(rank) });
	}

	/**
	 * Requests the probabilities of all characters where a cell stands; of one that the model wrote, as it was then, and
	 * with those of its neighbours.
	 * @param {Inspected} inspected @param {AbortSignal} signal
	 */
	async #requestScores({ branch: { doc }, index, cell: { run, at } }, signal) {
		const { block_size, default_prompt } = this.#options.card;
		let cells = doc.cells;
		let prefix = "";
		let from = index; // the first cell of the text that is scored; all before it are the prompt
		let first = index; // the first cell whose probabilities are requested
		let last = index;
		if (run) {
			cells = run.cells;
			prefix = run.prefix;
			last = Math.min(cells.length - 1, at + NEIGHBOURS);
			from = last > MAX_SCORED ? last - SCORED_TAIL : 0;
			first = Math.max(from, at - NEIGHBOURS);
		}
		const before = Array.from(prefix + textOf(cells.slice(0, from)));
		const prompt = before.slice(-block_size).join("") || default_prompt;
		const scored = cells.slice(first, last + 1);
		const text = textOf(cells.slice(from, last + 1));
		const body = { prompt, text, first: first - from, alternatives: this.#characters.length };
		/** @type {{ chars: Character[] }} */
		const { chars } = await post("/score", body, signal);
		chars.forEach(({ alternatives }, i) => {
			const raw = new Array(this.#characters.length).fill(0);
			for (const { char, prob } of alternatives) raw[/** @type {number} */ (this.#ids.get(char))] = prob;
			this.#probabilities.set(scored[i], raw);
		});
		return true;
	}

	/** Moves the inspector under the character or over it, where there is more room, inside the window. */
	position() {
		if (!this.at) return;
		const { branch, index } = this.at;
		const rect = branch.editor.lines.rectOf(index);
		const { style } = this.element;
		style.maxHeight = "";
		const { offsetWidth: width, offsetHeight: height } = this.element;
		const above = rect.top - 2 * GAP;
		const below = innerHeight - rect.bottom - 2 * GAP;
		const under = height <= below || below >= above;
		const room = Math.max(MIN_HEIGHT, under ? below : above);
		const shown = Math.min(height, room);
		const top = under ? rect.bottom + GAP : rect.top - GAP - shown;
		const maxLeft = document.documentElement.clientWidth - width - GAP;
		style.maxHeight = `${room}px`;
		style.left = `${Math.max(GAP, Math.min(rect.left - 24, maxLeft))}px`;
		style.top = `${Math.max(GAP, Math.min(top, innerHeight - shown - GAP))}px`;
	}

	/** @param {KeyboardEvent} event */
	#onKey(event) {
		if (event.key !== "ArrowDown" && event.key !== "ArrowUp") return;
		const by = event.key === "ArrowDown" ? 1 : -1;
		const buttons = [...this.element.querySelectorAll("button")];
		const index = buttons.findIndex((button) => button === document.activeElement) + by;
		buttons[(index + buttons.length) % buttons.length].focus();
		event.preventDefault();
	}
}
