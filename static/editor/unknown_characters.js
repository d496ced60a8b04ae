// Characters that the model has never seen: found while someone types, with the same replacements that the server
// gives (model/vocabulary.py).

import { textOf, typed } from "./document.js";

const MARKS = /[\p{M}\u1160-\u11ff]/gu; // and the vowels and finals of Hangul
const MARK = new RegExp(MARKS.source, "u");
const MAX_MARKS = 30; // after one character

export class UnknownCharacters {
	#replacements;
	#known;
	#first;

	/** @param {Pick<ModelCard, "replacements" | "vocabulary">} card */
	constructor({ replacements, vocabulary }) {
		this.#replacements = replacements;
		this.#known = new Set(vocabulary);
		this.#first = Array.from(vocabulary)[0];
	}

	/** Whether the model knows a character. @param {string} character */
	has(character) {
		return this.#known.has(character);
	}

	/**
	 * Each different unknown character of some cells, with the combining marks after it, and its replacement.
	 * @param {Cell[]} cells
	 */
	find(cells) {
		/** @type {Map<string, string>} */
		const found = new Map();
		if (cells.every(({ c }) => this.#known.has(c))) return found; // nearly always, and at each key
		for (const text of split(cells).map(textOf)) {
			if (!this.#canRead(text) && !found.has(text)) found.set(text, this.replacement(text));
		}
		return found;
	}

	/** The cells, with those that are unknown replaced. @param {Cell[]} cells */
	replace(cells) {
		return split(cells).flatMap((group) => {
			const text = textOf(group);
			return this.#canRead(text) ? group : typed(this.replacement(text));
		});
	}

	/** The nearest text that the model can read. @param {string} character */
	replacement(character) {
		const forms = ["NFC", "NFD", "NFKC", "NFKD"].map((form) => character.normalize(form));
		const plain = forms[3].replace(MARKS, "");
		const swapped = [...forms, plain].map(swapCase);
		const candidates = [this.#replacements[character], ...forms, plain, ...swapped, "?", " "];
		return candidates.find((text) => text && this.#canRead(text)) ?? this.#first;
	}

	/** @param {string} text */
	#canRead(text) {
		return Array.from(text).every((c) => this.#known.has(c));
	}
}

/** Cells in groups: a character and the combining marks that follow it. @param {Cell[]} cells */
function split(cells) {
	/** @type {Cell[][]} */
	const groups = [];
	for (const cell of cells) {
		const last = groups.at(-1);
		if (last && last.length <= MAX_MARKS && MARK.test(cell.c)) last.push(cell);
		else groups.push([cell]);
	}
	return groups;
}

/** @param {string} text */
function swapCase(text) {
	return Array.from(text, (c) => (c === c.toLowerCase() ? c.toUpperCase() : c.toLowerCase())).join("");
}
