// Shannon's game without its looks: which letters of a text are asked for, and what a bet on one costs, in bits.
// Capitals count as small letters. C. E. Shannon, "Prediction and Entropy of Printed English", 1951.

export const ROUNDS = 10;
const MIN_BEFORE = 12; // characters that are seen before the first letter
const MAX_STEP = 9; // characters from one letter to the next, about
const SPEAKER = /^[^\s:][^:]{0,40}:$/; // a line that names one, which is too easy and too hard
const RESERVE = 0.1; // the part of a bet that lies on all letters alike: a miss costs much, but not everything

/**
 * The places of the letters that are asked for, in the order of the text; fewer than `ROUNDS` if it is too short.
 * @param {string[]} characters @param {() => number} random From 0 to 1.
 */
export function choosePlaces(characters, random = Math.random) {
	const places = usable(characters);
	const step = Math.min(MAX_STEP, Math.floor(places.length / ROUNDS));
	if (step === 0) return [];
	const start = Math.floor(random() * (places.length - step * ROUNDS + 1));
	return Array.from({ length: ROUNDS }, (_, round) => {
		return places[start + round * step + Math.floor(random() * step)];
	});
}

/** Where a letter could be asked for: within lines, but not in those that name a speaker. @param {string[]} characters */
function usable(characters) {
	/** @type {number[]} */
	const places = [];
	let start = 0;
	for (const line of characters.join("").split("\n")) {
		const length = Array.from(line).length;
		if (!SPEAKER.test(line)) for (let i = 1; i < length; i++) places.push(start + i);
		start += length + 1;
	}
	return places.filter((place) => place >= MIN_BEFORE);
}

/** A letter as it is compared. @param {string} character */
export function folded(character) {
	return character.toLowerCase();
}

/** How much of a bet, such as "tth", lies on a letter: from 0 to 1. @param {string} bet @param {string} letter */
export function shareOf(bet, letter) {
	const letters = Array.from(bet, folded);
	return letters.filter((one) => one === folded(letter)).length / letters.length;
}

/**
 * The surprise of a player whose bet met a letter, in bits.
 * @param {string} bet @param {string} letter @param {number} size How many letters there are.
 */
export function bitsOfBet(bet, letter, size) {
	return -Math.log2((1 - RESERVE) * shareOf(bet, letter) + RESERVE / size);
}

/**
 * What the model expected where a letter stands: the likeliest letters, and how likely the letter was.
 * @param {Character} character
 */
export function expectationOf({ char, prob, alternatives }) {
	/** @type {Map<string, number>} */
	const sums = new Map();
	for (const one of alternatives) {
		const letter = folded(one.char);
		sums.set(letter, (sums.get(letter) ?? 0) + one.prob);
	}
	const likeliest = [...sums].sort(([, a], [, b]) => b - a);
	const probability = Math.max(prob, sums.get(folded(char)) ?? 0);
	return { likeliest, probability, bits: -Math.log2(probability) };
}
