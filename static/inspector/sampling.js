// The draw, replayed: the luck that a seed gives (model/sampling/noise.py), and what temperature and filters make of the model's
// probabilities (model/sampling/sampler.py). A slider can so show at once what it would change, with no model run.

const WEYL = [0x9e3779b9, 0xbb67ae85];
const MULTIPLIERS = [0xd2511f53, 0xcd9e8d57];

/** The upper 32 bits of the product of two words below 2³². */
function high(a, b) {
  const [aLow, aHigh, bLow, bHigh] = [a & 0xffff, a >>> 16, b & 0xffff, b >>> 16];
  const middle = aHigh * bLow + ((aLow * bLow) >>> 16);
  const low = (middle & 0xffff) + aLow * bHigh;
  return aHigh * bHigh + (middle >>> 16) + (low >>> 16);
}

/** Philox4x32-10: four random words for a counter of four words and a key of two (doi:10.1145/2063384.2063405). */
export function philox([a, b, c, d], [left, right]) {
  for (let round = 0; round < 10; round++) {
    [a, b, c, d] = [
      (high(c, MULTIPLIERS[1]) ^ b ^ left) >>> 0,
      Math.imul(c, MULTIPLIERS[1]) >>> 0,
      (high(a, MULTIPLIERS[0]) ^ d ^ right) >>> 0,
      Math.imul(a, MULTIPLIERS[0]) >>> 0,
    ];
    [left, right] = [(left + WEYL[0]) >>> 0, (right + WEYL[1]) >>> 0];
  }
  return [a, b, c, d];
}

/** Standard Gumbel noise of each of `size` characters for the draw at `position` (from 0) of a sample. */
export function luck(seed, sample, position, size) {
  const key = [seed >>> 0, Math.floor(seed / 2 ** 32)];
  const words = [];
  for (let group = 0; words.length < size; group++) words.push(...philox([group, position, sample, 0], key));
  return words.slice(0, size).map((word) => -Math.log(-Math.log((word + 0.5) / 2 ** 32)));
}

/**
 * What is drawn from: for each candidate its score before luck, -Infinity where a filter cuts it off, and its
 * probability. `raw` are the model's probabilities; `settings` are temperature (above 0), top_k, top_p, min_p.
 */
export function reshape(raw, { temperature, top_k, top_p, min_p }) {
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

/** The candidate that wins: the highest score and luck together; at temperature 0 the likeliest. */
export function winner(raw, settings, noise) {
  const sums = settings.temperature === 0 ? raw : reshape(raw, settings).scores.map((score, i) => score + noise[i]);
  return sums.indexOf(Math.max(...sums));
}

function softmax(scores) {
  const most = Math.max(...scores);
  const exponentials = scores.map((score) => Math.exp(score - most));
  const sum = exponentials.reduce((a, b) => a + b, 0);
  return exponentials.map((value) => value / sum);
}
