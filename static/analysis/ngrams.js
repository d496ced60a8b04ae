// How surprising a text is to a checkpoint's table of n-grams, as `Draft.bits` of model/sampling/ngram_draft.py. Keys are
// whole numbers of 64 bits here, so that large vocabularies have theirs, too.

import { numbersOf } from "../engine/weights.js";

const UNITS_PER_NAT = 24; // of surprisal

/** The mean bits of ids, each after those before it; null without a table or ids. @param {EngineWeights} weights @param {number[]} ids */
export function ngramBits(weights, ids) {
	if (!("draft_keys" in weights.tensors) || ids.length === 0) return null;
	const keys = numbersOf(weights, "draft_keys", BigInt64Array);
	const surprisal = numbersOf(weights, "draft_surprisal", Uint8Array);
	const size = weights.config.vocab_size;
	const base = BigInt(size + 1);
	let maxContext = 0;
	for (let key = keys[keys.length - 1]; key > 0n; key /= base) maxContext += 1;
	let sum = 0;
	for (const [i, id] of ids.entries()) {
		const context = ids.slice(Math.max(0, i - maxContext), i);
		sum += surprisal[rowOf(keys, context, base) * size + id];
	}
	return sum / (UNITS_PER_NAT * Math.LN2) / ids.length;
}

/** The row of the longest end of a context that the table has. @param {BigInt64Array} keys @param {number[]} context @param {bigint} base */
function rowOf(keys, context, base) {
	for (let start = 0; start < context.length; start++) {
		let key = 0n;
		for (let i = start; i < context.length; i++) key = key * base + BigInt(context[i] + 1);
		let low = 0;
		let high = keys.length;
		while (low < high) {
			const middle = (low + high) >> 1;
			if (keys[middle] < key) low = middle + 1;
			else high = middle;
		}
		if (keys[low] === key) return low;
	}
	return 0;
}
