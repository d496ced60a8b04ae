// Letters with how likely they are, as bars one below the other.

import { make } from "../ui/dom.js";
import { glyph, percent, spoken } from "../ui/i18n.js";

/**
 * A list of letters; `marked` is the one that came.
 * @param {[string, number][]} letters Each with its probability. @param {string} label @param {string | null} marked
 */
export function drawLetters(letters, label, marked = null) {
	const list = make("ul", "letters");
	list.setAttribute("aria-label", label);
	for (const [letter, probability] of letters) {
		const item = list.appendChild(make("li", letter === marked ? "came" : ""));
		item.append(drawLetter(letter, probability));
	}
	return list;
}

/** One letter, its bar and its percentage. @param {string} letter @param {number} probability */
export function drawLetter(letter, probability) {
	const row = make("span", "letter");
	const name = row.appendChild(make("span", "glyph"));
	name.append(hidden(glyph(letter)), make("span", "unseen", spoken(letter)));
	const level = row.appendChild(make("span", "level"));
	level.appendChild(make("span")).style.width = `${100 * probability}%`;
	row.append(make("span", "percent", percent(probability)));
	return row;
}

/** What is seen and not said. @param {string} text */
function hidden(text) {
	const element = make("span", "", text);
	element.setAttribute("aria-hidden", "true");
	return element;
}
