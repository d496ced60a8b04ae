// The draw, replayed: the Gumbel noise that a seed gives (model/sampling/noise.py), and what temperature and filters
// make of the model's probabilities (model/sampling/sampler.py). A slider shows at once what it would change, and the
// model need not run.

const WEYL = [0x9e3779b9, 0xbb67ae85];
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
	let words = counter;
	let [left, right] = key;
	for (let round = 0; round < 10; round++) {
		const [a, b, c, d] = words;
		words = [
			(multiplyHigh(c, MULTIPLIERS[1]) ^ b ^ left) >>> 0,
			Math.imul(c, MULTIPLIERS[1]) >>> 0,
			(multiplyHigh(a, MULTIPLIERS[0]) ^ d ^ right) >>> 0,
			Math.imul(a, MULTIPLIERS[0]) >>> 0,
		];
		left = (left + WEYL[0]) >>> 0;
		right = (right + WEYL[1]) >>> 0;
	}
	return words;
}

/**
 * Standard Gumbel noise of each of `size` characters for the draw at `position` (from 0) of a sample.
 * @param {number} seed @param {number} sample @param {number} position @param {number} size
 */
export function gumbelNoise(seed, sample, position, size) {
	/** @type {[number, number]} */
	const key = [seed >>> 0, Math.floor(seed / 2 ** 32)];
	const words = [];
	for (let group = 0; words.length < size; group++) words.push(...philox([group, position, sample, 0], key));
	return words.slice(0, size).map((word) => -Math.log(-Math.log((word + 0.5) / 2 ** 32)));
}

/**
 * What is drawn from: for each candidate its log-probability after temperature, -Infinity where a filter cuts it off,
 * and its final probability. `raw` are the model's probabilities; the temperature is above 0.
 * @param {number[]} raw @param {Sampling} settings
 */
export function applySettings(raw, { temperature, top_k, top_p, min_p }) {
	let scores = raw.map((p) => Math.log(p) / temperature);
	if (top_k !== null && top_k < raw.length) {
		const kth = [...raw].sort((a, b) => b - a)[top_k - 1];
		scores = scores.map((score, i) => (raw[i] < kth ? -Infinity : score));
	}
	if (top_p !== null && top_p < 1) {
		const before = softmax(scores);
		const order = raw.map((_, i) => i).sort((a, b) => scores[b] - scores[a] || a - b);
		let sum = 0;
		for (const i of order) {
			if (sum >= top_p) scores[i] = -Infinity;
			sum += before[i];
		}
	}
	if (min_p) {
		const floor = Math.max(...scores) + Math.log(min_p);
		scores = scores.map((score) => (score < floor ? -Infinity : score));
	}
	return { scores, final: softmax(scores) };
}

/**
 * The candidate that is drawn: the highest sum of score and noise; at temperature 0 the likeliest.
 * @param {number[]} raw @param {Sampling} settings @param {number[]} noise
 */
export function draw(raw, settings, noise) {
	const greedy = settings.temperature === 0;
	const sums = greedy ? raw : applySettings(raw, settings).scores.map((score, i) => score + noise[i]);
	return sums.indexOf(Math.max(...sums));
}

/** @param {number[]} scores */
function softmax(scores) {
	const highest = Math.max(...scores);
	const exponentials = scores.map((score) => Math.exp(score - highest));
	const sum = exponentials.reduce((a, b) => a + b, 0);
	return exponentials.map((value) => value / sum);
}
