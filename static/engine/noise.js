// Gumbel noise as a pure function of seed, sample, position and character, as in model/sampling/noise.py.

import { logarithm } from "./arithmetic.js";

const KEY_STEPS = [0x9e3779b9, 0xbb67ae85];
const MULTIPLIERS = [0xd2511f53, 0xcd9e8d57];

/** The upper 32 bits of the product of two words below 2³². @param {number} a @param {number} b */
function multiplyHigh(a, b) {
	const aLow = a & 0xffff;
	const aHigh = a >>> 16;
	const bLow = b & 0xffff;
	const bHigh = b >>> 16;
	const middle = aHigh * bLow + ((aLow * bLow) >>> 16);
	const low = (middle & 0xffff) + aLow * bHigh;
	return aHigh * bHigh + (middle >>> 16) + (low >>> 16);
}

/**
 * Philox4x32-10: four random words for a counter of four words and a key of two (doi:10.1145/2063384.2063405).
 * @param {[number, number, number, number]} counter @param {[number, number]} key
 */
function philox(counter, key) {
	let [a, b, c, d] = counter;
	let [left, right] = key;
	for (let round = 0; round < 10; round++) {
		const nextA = (multiplyHigh(c, MULTIPLIERS[1]) ^ b ^ left) >>> 0;
		const nextC = (multiplyHigh(a, MULTIPLIERS[0]) ^ d ^ right) >>> 0;
		b = Math.imul(c, MULTIPLIERS[1]) >>> 0;
		d = Math.imul(a, MULTIPLIERS[0]) >>> 0;
		a = nextA;
		c = nextC;
		left = (left + KEY_STEPS[0]) >>> 0;
		right = (right + KEY_STEPS[1]) >>> 0;
	}
	return [a, b, c, d];
}

/**
 * Standard Gumbel noise of each of `size` characters for the draw at `position` (from 0) of a sample.
 * @param {number} seed @param {number} sample @param {number} position @param {number} size
 */
export function gumbelNoise(seed, sample, position, size) {
	/** @type {[number, number]} */
	const key = [seed >>> 0, Math.floor(seed / 2 ** 32)];
	const noise = new Float64Array(size);
	for (let first = 0; first < size; first += 4) {
		const words = philox([first / 4, position, sample, 0], key);
		for (let i = first; i < Math.min(first + 4, size); i++) {
			noise[i] = -logarithm(-logarithm((words[i - first] + 0.5) / 2 ** 32));
		}
	}
	return noise;
}
