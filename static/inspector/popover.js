// The inspector: which character it shows, and what it requests from the model. candidates.js draws its content.

import { isAsWritten, textOf } from "../editor/document.js";
import { find, make } from "../ui/dom.js";
import { glyph, number, spoken, t } from "../ui/i18n.js";
import { messageOf, Retry } from "../ui/retry.js";
import { choice } from "./rank.js";

const CONTEXT = 16; // characters before one that its reason repeats
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
	#expanded = false;
	/** Null until it is loaded. @type {typeof import("./candidates.js") | null} */
	#drawing = null;
	/** Those for which the dice have fallen. @type {WeakSet<Cell>} */
	#rolled = new WeakSet();
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
		this.#options.onShow(pinned);
		const readable = this.#ids.has(cell.c);
		this.#notice.textContent = readable ? "" : t("never_read");
		this.draw();
		if (this.#drawing && (this.#probabilities.has(cell) || !readable)) return;
		try {
			const answered = await this.#retry.run((signal) => this.#requestMissing(at, readable, signal));
			if (answered && this.at?.cell === cell) this.draw();
		} catch (error) {
			if (this.at?.cell === cell) this.#notice.textContent = messageOf(error);
		}
	}

	close() {
		this.#retry.stop();
		this.at = null;
		this.element.hidden = true;
		this.#options.onShow(false);
	}

	/** Draws what is known, with the settings of now. */
	draw() {
		if (!this.at) return;
		const { branch, index, cell } = this.at;
		const { settings, onChoose } = this.#options;
		const raw = this.#probabilities.get(cell);
		const ids = this.#ids;
		if (!this.#drawing) {
			this.element.replaceChildren(this.#notice);
			return;
		}
		const { drawCandidates, drawMarks, drawReason, drawTitle } = this.#drawing;
		/** @type {HTMLElement[]} */
		const parts = [drawTitle(cell, raw, ids), ...drawReason(cell, raw, ids, this.#before()), ...drawMarks(cell)];
		if (!isAsWritten(branch.doc.cells, index)) parts.push(make("p", "hint", t("edited_before")));
		if (raw) {
			const choose = (/** @type {string} */ character) => onChoose(branch, index, character);
			const rolling = !this.#rolled.has(cell);
			this.#rolled.add(cell);
			parts.push(
				...drawCandidates({
					cell,
					raw,
					settings: settings(),
					characters: this.#characters,
					ids,
					expanded: this.#expanded,
					rolling,
					onExpand: () => this.#expand(),
					onChoose: choose,
				}),
			);
		} else parts.push(this.#notice);
		const focused = document.activeElement?.getAttribute("data-id") ?? null;
		this.element.replaceChildren(...parts);
		if (focused !== null) find(this.element, `[data-id="${CSS.escape(focused)}"]`)?.focus();
	}

	/** Shows more candidates, or fewer again. */
	#expand() {
		this.#expanded = !this.#expanded;
		this.draw();
		find(this.element, ".expand").focus();
	}

	/** The end of what stood before the character, line breaks made visible. */
	#before() {
		if (!this.at) return "";
		const { branch, index, cell } = this.at;
		const { run, at } = cell;
		const text = run ? run.prefix + textOf(run.cells.slice(0, at)) : textOf(branch.doc.cells.slice(0, index));
		const last = Array.from(text).slice(-CONTEXT);
		if (!last.length) return t("why_start");
		const shown = last.map((c) => (c === " " ? c : glyph(c))).join("");
		return text.length > shown.length ? `…${shown}` : shown;
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
	 * Loads the code that draws, and requests the probabilities if there are any.
	 * @param {Inspected} inspected @param {boolean} readable @param {AbortSignal} signal
	 */
	async #requestMissing(inspected, readable, signal) {
		this.#drawing ??= await import("./candidates.js");
		if (!readable) this.#notice.textContent = t("never_read");
		else if (this.at === inspected) this.draw();
		return readable ? this.#requestScores(inspected, signal) : true;
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
		const { chars } = await this.#options.score(body, signal);
		chars.forEach(({ alternatives }, i) => {
			const raw = new Array(this.#characters.length).fill(0);
			for (const { char, prob } of alternatives) raw[/** @type {number} */ (this.#ids.get(char))] = prob;
			this.#probabilities.set(scored[i], raw);
		});
		return true;
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
