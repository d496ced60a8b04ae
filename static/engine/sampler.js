// From logits to one character, as in model/sampling/sampler.py: the same numbers in the same order, in doubles.

import { exponential, logarithm } from "./arithmetic.js";

const MIN_TOP_P = 1e-30; // the likeliest alone

/**
 * The id with the highest logit / temperature + noise among those that the filters keep; of equal ones the lowest.
 * @param {Float32Array} logits @param {EngineSampling} sampling @param {Float64Array | null} noise null at
 *   temperature 0
 */
export function draw(logits, sampling, noise) {
	if (sampling.temperature === 0 || noise === null) return argmax(logits);
	const highest = maximum(logits);
	const scores = new Float64Array(logits.length);
	for (let i = 0; i < scores.length; i++) scores[i] = (logits[i] - highest) / sampling.temperature;
	if (!keepsAll(sampling, logits.length)) filter(scores, logits, sampling);
	for (let i = 0; i < scores.length; i++) scores[i] += noise[i];
	return argmax(scores);
}

/** The highest number. @param {Float32Array | Float64Array} values */
export function maximum(values) {
	return values[argmax(values)];
}

/** Whether every character can be drawn. @param {EngineSampling} sampling @param {number} size */
function keepsAll({ top_k, top_p, min_p }, size) {
	const limited = top_k !== null && top_k < size;
	return !limited && (top_p === null || top_p === 1) && !min_p;
}

/**
 * Sets the scores of characters that top-k, then top-p, then min-p exclude to -Infinity.
 * @param {Float64Array} scores @param {Float32Array} logits @param {EngineSampling} sampling
 */
function filter(scores, logits, { top_k, top_p, min_p }) {
	const size = scores.length;
	if (top_k !== null && top_k < size) {
		const kth = logits.slice().sort()[size - top_k];
		for (let i = 0; i < size; i++) if (logits[i] < kth) scores[i] = -Infinity;
	}
	if (top_p !== null && top_p < 1) {
		const probabilities = softmax(scores);
		const order = Array.from(scores.keys()).sort((a, b) => compare(scores[b], scores[a]) || a - b);
		let sum = 0;
		for (const id of order) {
			sum += probabilities[id];
			if (sum - probabilities[id] >= (top_p || MIN_TOP_P)) scores[id] = -Infinity;
		}
	}
	if (min_p) {
		const floor = maximum(scores) + logarithm(min_p);
		for (let i = 0; i < size; i++) if (scores[i] < floor) scores[i] = -Infinity;
	}
}

/** @param {Float64Array} scores */
function softmax(scores) {
	const highest = maximum(scores);
	const exponentials = scores.map((score) => exponential(score - highest));
	let sum = 0;
	for (const one of exponentials) sum += one;
	return exponentials.map((one) => one / sum);
}

/** The sign of a difference, which of two infinities would be NaN. @param {number} a @param {number} b */
function compare(a, b) {
	return Number(a > b) - Number(a < b);
}

/** The index of the highest number, the lowest of equal ones. @param {Float32Array | Float64Array} values */
function argmax(values) {
	let best = 0;
	for (let i = 1; i < values.length; i++) if (values[i] > values[best]) best = i;
	return best;
}
