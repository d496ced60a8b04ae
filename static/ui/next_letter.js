// Step by step: what the model considers for the next character, at the end of the text, before the dice fall.

import { make } from "./dom.js";
import { glyph, percent, spoken, t } from "./i18n.js";

const GAP = 6; // pixels below the line

export class NextLetter {
	#element = make("div", "next");

	constructor() {
		this.#element.setAttribute("role", "status");
		this.#element.hidden = true;
	}

	/** Shows what was considered where a text ends; nothing without a `cell`. @param {Branch} branch @param {WrittenCell | null} cell */
	show({ page, doc, editor }, cell) {
		const candidates = cell?.run.alternatives[cell.at] ?? [];
		this.#element.hidden = candidates.length === 0;
		if (!candidates.length) return;
		const parts = candidates.map(({ char, prob }) => {
			const part = make("span", "", glyph(char));
			part.append(make("small", "", percent(prob)));
			return part;
		});
		this.#element.replaceChildren(...parts);
		const words = candidates.map(({ char, prob }) => `${spoken(char)} ${percent(prob)}`).join(", ");
		this.#element.setAttribute("aria-label", t("next_letters", { words }));
		if (this.#element.parentElement !== page) page.append(this.#element);
		const end = editor.lines.rectOf(doc.length);
		const { left, top, right } = page.getBoundingClientRect();
		this.#element.style.top = `${end.bottom - top + GAP}px`;
		const room = right - left - this.#element.offsetWidth;
		this.#element.style.left = `${Math.max(0, Math.min(end.left - left, room))}px`;
	}
}
