// The draw, replayed: what temperature and filters make of the model's probabilities (model/sampling/sampler.py), with
// the noise that the seed gives. A slider shows at once what it would change, and the model need not run. To be shown
// only: the probabilities are rounded, and the logarithms are the browser's.

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
 * @param {number[]} raw @param {Sampling} settings @param {ArrayLike<number>} noise
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
