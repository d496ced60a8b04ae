// How much a text repeats itself: different n-grams of its words, and loops, as in model/analysis/repetition.py.

const MIN_REPEATED = 16; // characters that a loop repeats
const MAX_PERIOD = 2000; // characters; what comes again later is a refrain

/** The different word n-grams of a text over all of them; null if it has none. @param {string[]} words @param {number} n */
export function distinct(words, n) {
	const all = words.length - n + 1;
	if (all <= 0) return null;
	const grams = new Set();
	for (let i = 0; i < all; i++) grams.add(words.slice(i, i + n).join(" ")); // no word has a space
	return grams.size / all;
}

/** Passages of 16 characters or more that are repeated at once and whole. @param {readonly string[]} characters */
export function findLoops(characters) {
	/** @type {Map<string, number>} */
	const last = new Map();
	/** Back to where the next 16 characters stood last, or 0. @type {number[]} */
	const distances = [];
	for (let i = 0; i + MIN_REPEATED <= characters.length; i++) {
		const passage = characters.slice(i, i + MIN_REPEATED).join("");
		const distance = i - (last.get(passage) ?? i);
		distances.push(distance > MAX_PERIOD ? 0 : distance);
		last.set(passage, i);
	}
	/** @type {{ start: number, end: number, period: number }[]} */
	const loops = [];
	for (let first = 0; first < distances.length;) {
		const period = distances[first];
		let after = first + 1;
		while (after < distances.length && distances[after] === period) after += 1;
		const start = first - period;
		const end = after - 1 + MIN_REPEATED;
		const isFree = loops.length === 0 || start >= loops[loops.length - 1].end;
		if (period > 0 && end - first >= period && isFree) loops.push({ start, end, period });
		first = after;
	}
	return loops;
}
