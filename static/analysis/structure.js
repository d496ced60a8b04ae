// The form of a text: speakers and speeches, lines, verse or prose, brackets and quotes, as in
// model/analysis/structure.py.

import { LETTER } from "./words.js";

// Python's white space, which is not JavaScript's.
const SPACE = "[\\t-\\r\\x1c-\\x20\\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000]";
const OUTER_SPACE = new RegExp(`^${SPACE}+|${SPACE}+$`, "gu");
const HEADING = new RegExp(`(?<![^\\n])(${LETTER}[^\\n:.!?;,]{0,39}):(?![^\\n])`, "gu");
const SIGN = new RegExp(`[()\\[\\]{}“”„«»"]|\\n${SPACE}*\\n`, "gu");
const MIN_LINES = 3;
const MIN_VERSE = 0.8;
const MAX_PROSE = 0.2;
const SENTENCE_ENDS = Array.from(".!?…。！？:");
/** @type {Record<string, string>} */
const CLOSES = { ")": "(", "]": "[", "}": "{", "”": "“„", "“": "„", "»": "«", "«": "»", '"': '"' };
const OPENS = '([{“„«»"';

/** @param {string} text */
const strip = (text) => text.replace(OUTER_SPACE, "");
/** @param {string} text */
const count = (text) => Array.from(text).length;

/**
 * The form of a text; a text is a play only if the training text has speakers.
 * @param {string} text @param {string[]} speakers of the training text @returns {Structure}
 */
export function analyse(text, speakers) {
	const known = new Set(speakers);
	const headings = known.size > 0 ? findHeadings(text) : [];
	/** @type {Map<string, Speaker>} */
	const found = new Map();
	headings.forEach(({ name, end }, i) => {
		const said = text.slice(end, headings[i + 1]?.start ?? text.length);
		const speaker = found.get(name) ?? { name, known: known.has(name), speeches: 0, characters: 0 };
		speaker.speeches += 1;
		speaker.characters += count(strip(said));
		found.set(name, speaker);
	});
	const lines = linesOf(text, new Set(headings.map(({ start }) => start)));
	const lengths = lines.filter((line) => line !== "").map(count);
	const total = lengths.reduce((sum, length) => sum + length, 0);
	const verse = verseOf(lines);
	return {
		speakers: [...found.values()],
		speeches: headings.length,
		lines: lengths.length,
		lineLength: lengths.length > 0 ? total / lengths.length : null,
		verse,
		form: formOf(verse),
		...balance(text),
	};
}

/** @param {string} text */
function findHeadings(text) {
	const headings = [];
	for (const { 0: whole, 1: name, index } of text.matchAll(HEADING)) {
		const before = text.slice(Math.max(0, index - 2), index);
		if (["", "\n", "\n\n"].includes(before) && !/^\p{Lowercase}/u.test(name)) {
			headings.push({ name, start: index, end: index + whole.length });
		}
	}
	return headings;
}

/** The lines without white space around them; an empty one for each heading. @param {string} text @param {Set<number>} headings */
function linesOf(text, headings) {
	let start = 0;
	return text.split("\n").map((line) => {
		const stripped = headings.has(start) ? "" : strip(line);
		start += line.length + 1;
		return stripped;
	});
}

/** @param {string[]} lines */
function verseOf(lines) {
	let capitals = 0;
	let counted = 0;
	for (let i = 1; i < lines.length; i++) {
		const before = lines[i - 1];
		const line = lines[i];
		if (!line || !before || SENTENCE_ENDS.some((end) => before.endsWith(end))) continue;
		const isCapital = /^(?=\p{L})\p{Uppercase}/u.test(line);
		if (!isCapital && !/^(?=\p{L})\p{Lowercase}/u.test(line)) continue;
		counted += 1;
		if (isCapital) capitals += 1;
	}
	return counted >= MIN_LINES ? capitals / counted : null;
}

/** @param {number | null} verse */
function formOf(verse) {
	if (verse === null) return null;
	if (verse > MIN_VERSE) return "verse";
	return verse < MAX_PROSE ? "prose" : "mixed";
}

/** Positions of brackets and quotes without a partner, and the number of pairs. @param {string} text */
function balance(text) {
	/** @type {{ sign: string, position: number }[]} */
	const opened = [];
	/** @type {number[]} */
	const unmatched = [];
	let matched = 0;
	let paragraph = 0;
	let units = 0;
	let at = 0; // in characters
	const pop = () => /** @type {{ sign: string, position: number }} */ (opened.pop()).position;
	for (const { 0: sign, index } of text.matchAll(SIGN)) {
		at += count(text.slice(units, index));
		units = index;
		const position = at;
		if (sign[0] === "\n") {
			paragraph = position;
			continue;
		}
		while (opened.at(-1)?.sign === '"' && Number(opened.at(-1)?.position) < paragraph) unmatched.push(pop());
		const partners = CLOSES[sign] ?? "";
		const last = opened.at(-1);
		if (last && partners.includes(last.sign)) {
			pop();
			matched += 1;
		} else if (OPENS.includes(sign)) {
			opened.push({ sign, position });
		} else if (opened.some((one) => partners.includes(one.sign))) {
			while (!partners.includes(opened[opened.length - 1].sign)) unmatched.push(pop());
			pop();
			matched += 1;
		} else unmatched.push(position);
	}
	unmatched.push(...opened.map(({ position }) => position));
	return { unmatched: unmatched.sort((a, b) => a - b), matched };
}
