// Draft tokens from the n-gram table of a checkpoint, as in model/sampling/ngram_draft.py. They change the speed of a
// text, never its characters, so nothing here needs to be exact.

import { numbersOf } from "./weights.js";

const NATS_PER_UNIT = 1 / 24; // of surprisal
const MARGIN_SLOPE = 0.85; // how fast the doubt in a draft token shrinks with its margin, per nat

/** The table of a file of weights; null if it has none, or one whose keys no double holds. @param {EngineWeights} weights */
export function readDraft(weights) {
	if (!("draft_keys" in weights.tensors)) return null;
	const keys = Float64Array.from(numbersOf(weights, "draft_keys", BigInt64Array), Number);
	if (keys[keys.length - 1] > Number.MAX_SAFE_INTEGER) return null;
	return new Draft(keys, numbersOf(weights, "draft_surprisal", Uint8Array), weights.config.vocab_size);
}

/** The surprisal of each character after some contexts. */
export class Draft {
	/** @param {Float64Array} keys of the contexts, ascending @param {Uint8Array} surprisal @param {number} size */
	constructor(keys, surprisal, size) {
		this._keys = keys;
		this._surprisal = surprisal;
		this._size = size;
		this.maxContext = 0;
		for (let key = keys[keys.length - 1]; key > 0; key = Math.floor(key / (size + 1))) this.maxContext += 1;
	}

	/**
	 * A draft token after the last ids of a text, and the probability that the network draws the same.
	 * @param {readonly number[]} context @param {Float64Array | null} noise of its position; null at temperature 0
	 * @param {number} temperature
	 */
	propose(context, noise, temperature) {
		const row = this._row(context) * this._size;
		const scale = temperature > 0 ? temperature : 1;
		let best = 0;
		let highest = -Infinity;
		let second = -Infinity;
		for (let id = 0; id < this._size; id++) {
			const score = (noise === null ? 0 : noise[id]) - (this._surprisal[row + id] * NATS_PER_UNIT) / scale;
			if (score > highest) {
				best = id;
				second = highest;
				highest = score;
			} else if (score > second) second = score;
		}
		return { id: best, probability: 1 - 0.5 * Math.exp(-MARGIN_SLOPE * (highest - second) * scale) };
	}

	/** The row of the longest end of a context that the table has. @param {readonly number[]} context */
	_row(context) {
		for (let start = Math.max(0, context.length - this.maxContext); start < context.length; start++) {
			let key = 0;
			for (let i = start; i < context.length; i++) key = key * (this._size + 1) + context[i] + 1;
			const row = this._find(key);
			if (row !== -1) return row;
		}
		return 0;
	}

	/** @param {number} key */
	_find(key) {
		let low = 0;
		let high = this._keys.length;
		while (low < high) {
			const middle = (low + high) >> 1;
			if (this._keys[middle] < key) low = middle + 1;
			else high = middle;
		}
		return this._keys[low] === key ? low : -1;
	}
}
