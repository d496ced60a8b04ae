// The page's texts in the reader's language, as the server put them into the page, and numbers as that language has them.

import { nameOf } from "./character_names.js";
import { $ } from "./dom.js";

/** @type {Record<string, any>} */
const table = JSON.parse($("texts").textContent);
export const language = document.documentElement.lang;
const PLACEHOLDER = /\{(\w+)((?:\|[^|}]*)*)\}/g;

/**
 * The text named `key`, with each {name} in it replaced by a value: words, a whole number, or {value, digits}.
 * {name|character|characters} becomes the form of a word that goes with that number: one and other, or one, many and
 * other where a language (Spanish: 1.000.000 de caracteres) has three.
 * @param {string} key @param {Record<string, TextValue>} values @returns {string}
 */
export function t(key, values = {}) {
	/** @type {string} */
	const text = table[key];
	return text.replace(PLACEHOLDER, (_, name, forms) => {
		const given = values[name] ?? "";
		if (typeof given === "string") return given;
		const { value, digits } = typeof given === "number" ? { value: given, digits: 0 } : given;
		return forms ? formOf(forms.slice(1).split("|"), value, digits) : number(value, digits);
	});
}

/** Adds texts that have come later. @param {Record<string, unknown>} texts */
export function addTexts(texts) {
	Object.assign(table, texts);
}

/** The texts named `key`, row by row. @param {string} key @returns {string[][]} */
export function lists(key) {
	return table[key];
}

/** Whether there is a text named `key`. @param {string} key */
export function has(key) {
	return key in table;
}

/**
 * The form of a word that goes with a number.
 * @param {string[]} forms @param {number} value @param {number} digits
 */
function formOf(forms, value, digits) {
	const category = new Intl.PluralRules(language, { maximumFractionDigits: digits }).select(value);
	if (category === "one") return forms[0];
	return category === "many" && forms.length === 3 ? forms[1] : forms[forms.length - 1];
}

/**
 * A number with `minDigits` to `maxDigits` digits after the point, and a minus sign as wide as a plus.
 * @param {number} value
 */
export function number(value, maxDigits = 0, minDigits = 0) {
	/** @type {Intl.NumberFormatOptions} */
	const format = { minimumFractionDigits: minDigits, maximumFractionDigits: maxDigits, signDisplay: "negative" };
	return value.toLocaleString(language, format).replace("-", "−");
}

/**
 * A loss, in nats or bits, with two digits: as many as number formats and machines agree on.
 * @param {number} value
 */
export function loss(value) {
	return { value, digits: 2 };
}

/** A probability from 0 to 1 as a percentage that is never rounded to a certainty. @param {number} probability */
export function percent(probability) {
	const value = 100 * probability;
	if (value > 0 && value < 0.1) return `<${number(0.1, 1)}\u00a0%`;
	if (value < 100 && value > 99.9) return `>${number(99.9, 1)}\u00a0%`;
	return `${number(value, value < 10 || value > 99 ? 1 : 0)}\u00a0%`;
}

/** @type {Record<string, string>} */
const GLYPHS = { " ": "␣", "\n": "↵", "\t": "⇥" };

/**
 * A character as it can be shown alone: spaces, line breaks and what else cannot be seen are made visible.
 * @param {string} character
 */
export function glyph(character) {
	return GLYPHS[character] ?? nameOf(character) ?? character;
}

/** A character as it can be said. @param {string} character */
export function spoken(character) {
	if (character === " ") return t("space");
	if (character === "\n") return t("line_break");
	return nameOf(character) ?? character;
}
