// How sure the model was of a character, as in `compute_logprobs` of model/sampling/sampler.py.

import { exponential } from "./arithmetic.js";

/**
 * Probability, rank and entropy (bits) of a character by the model's own probabilities, and the likeliest characters.
 * @param {Float32Array} logits @param {number} id @param {readonly string[]} vocabulary
 * @param {number} alternatives how many characters are listed
 * @returns {Character}
 */
export function detailsOf(logits, id, vocabulary, alternatives) {
	const highest = Math.max(...logits);
	const relative = Float64Array.from(logits, (logit) => logit - highest);
	const exponentials = relative.map(exponential);
	const sum = exponentials.reduce((total, one) => total + one, 0);
	const probabilities = exponentials.map((one) => one / sum);
	const mean = probabilities.reduce((total, probability, i) => total + probability * relative[i], 0);
	let rank = 1;
	for (let i = 0; i < logits.length; i++) {
		if (logits[i] > logits[id] || (logits[i] === logits[id] && i < id)) rank += 1;
	}
	const ids = alternatives > 0 ? Array.from(logits.keys()).sort((a, b) => logits[b] - logits[a] || a - b) : [];
	return {
		char: vocabulary[id],
		prob: probabilities[id],
		rank,
		entropy: Math.max(0, (Math.log(sum) - mean) / Math.LN2),
		alternatives: ids.slice(0, alternatives).map((i) => ({ char: vocabulary[i], prob: probabilities[i] })),
	};
}
