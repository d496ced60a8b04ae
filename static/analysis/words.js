// The words of a text: which of them the training text has, and which the invented ones are like, as in
// model/analysis/words.py. Positions are in characters (code points).

// What Python's `[^\W\d_]` matches, and the marks and joiners that go on with a word.
export const LETTER = "[\\p{L}\\p{Nl}\\p{No}]";
const MARK = "(?:(?![\\u{10000}-\\u{10ffff}])\\p{M})";
const WORD = new RegExp(`${LETTER}(?:${LETTER}|${MARK}|[\\u200c\\u200d])*`, "gu");
const MANY_MARKS = new RegExp(`${MARK}{31}`, "u"); // more in a row than any script has
const MAX_LETTERS = 50;
const MIN_SHARED = 2; // characters that an invented word shares with one that it is like

/** The words of the training text, the most frequent first. */
export class WordList {
	/** @param {string[]} words @param {Record<string, string>} folds of characters whose case is not folded by lower case */
	constructor(words, folds) {
		this._words = words;
		this._folds = new Map(Object.entries(folds));
		this._known = new Set(words);
		/** @type {Ordered | null} */ this._beginnings = null;
		/** @type {Ordered | null} */ this._ends = null;
	}

	/** A form that all spellings of a word share. @param {string} word */
	key(word) {
		const folded = Array.from(word, (c) => this._folds.get(c) ?? c.toLowerCase()).join("");
		return MANY_MARKS.test(folded) ? folded : folded.normalize("NFC");
	}

	/** What is known of each word of a text; a word that the end may cut off counts if it is real. @param {string} text */
	mark(text) {
		/** @type {WordMark[]} */
		const marks = [];
		const length = Array.from(text).length;
		let units = 0; // of UTF-16, up to which characters were counted
		let at = 0;
		for (const { 0: word, index } of text.matchAll(WORD)) {
			const start = at + Array.from(text.slice(units, index)).length;
			const letters = Array.from(word).length;
			units = index + word.length;
			at = start + letters;
			if (letters > MAX_LETTERS) continue;
			const mark = this._markOf(word, start, at);
			if (at < length || mark.real) marks.push(mark);
		}
		return marks;
	}

	/** @param {string} word @param {number} start @param {number} end @returns {WordMark} */
	_markOf(word, start, end) {
		const key = this.key(word);
		if (this._known.has(key)) return { start, end, word, key, real: true };
		this._beginnings ??= new Ordered(this._words);
		this._ends ??= new Ordered(this._words.map(reversed));
		const begins_like = this._likest(this._beginnings, key);
		return { start, end, word, key, real: false, begins_like, ends_like: this._likest(this._ends, reversed(key)) };
	}

	/** The most frequent of the words that share the longest beginning with `key`, as spelt. @param {Ordered} ordered @param {string} key */
	_likest({ spellings, ranks }, key) {
		const position = firstAtLeast(spellings, key);
		const neighbours = spellings.slice(Math.max(0, position - 1), position + 1);
		const shared = Math.max(0, ...neighbours.map((one) => sharedBeginning(key, one)));
		if (shared < MIN_SHARED) return null;
		const beginning = Array.from(key).slice(0, shared).join("");
		let best = Infinity;
		for (let i = firstAtLeast(spellings, beginning); spellings[i]?.startsWith(beginning); i++) {
			best = Math.min(best, ranks[i]);
		}
		return { word: this._words[best], shared };
	}
}

/** Words in the order of their characters, and the rank of each: 0 for the most frequent. */
class Ordered {
	/** @param {string[]} words */
	constructor(words) {
		this.ranks = [...words.keys()].sort((a, b) => compare(words[a], words[b]));
		this.spellings = this.ranks.map((rank) => words[rank]);
	}
}

/** The place of the first spelling that does not come before `key`. @param {string[]} spellings @param {string} key */
function firstAtLeast(spellings, key) {
	let low = 0;
	let high = spellings.length;
	while (low < high) {
		const middle = (low + high) >> 1;
		if (compare(spellings[middle], key) < 0) low = middle + 1;
		else high = middle;
	}
	return low;
}

/** The order of two texts by their code points; that of JavaScript is by halves of them. @param {string} a @param {string} b */
function compare(a, b) {
	for (let i = 0; i < a.length && i < b.length; i++) {
		if (a[i] === b[i]) continue;
		const isSecondHalf = i > 0 && /[\ud800-\udbff]/.test(a[i - 1]);
		const at = isSecondHalf ? i - 1 : i;
		return Number(a.codePointAt(at)) - Number(b.codePointAt(at));
	}
	return a.length - b.length;
}

/** @param {string} a @param {string} b */
function sharedBeginning(a, b) {
	const one = Array.from(a);
	const other = Array.from(b);
	let shared = 0;
	while (shared < one.length && one[shared] === other[shared]) shared += 1;
	return shared;
}

/** @param {string} word */
function reversed(word) {
	return Array.from(word).reverse().join("");
}
