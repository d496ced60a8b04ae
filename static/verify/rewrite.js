// A text that is written again on this device, and compared with what a receipt or a link says of it.

import { difference } from "../editor/share_format.js";
import { streamHere } from "../engine/client.js";

/**
 * Writes the samples of a subject again; yields each piece of text as it comes, and returns how they compare.
 * @param {Subject} subject @param {ModelCard} card @param {AbortSignal} signal
 * @returns {AsyncGenerator<{ sample: number, text: string }, Comparison[]>}
 */
export async function* rewrite({ seed, parameters, samples }, card, signal) {
	const texts = samples.map(() => "");
	/** @type {string[]} */
	let digests = [];
	for await (const { event, data } of streamHere({ ...parameters, seed }, card, { signal })) {
		if (event === "text") {
			texts[data.sample] += data.text;
			yield { sample: data.sample, text: data.text };
		} else if (event === "done") digests = data.receipt.samples.map(({ sha256 }) => sha256);
	}
	return samples.map((sample, i) => compare(sample, texts[i], digests[i]));
}

/**
 * How what was written again compares with a sample.
 * @param {SubjectSample} sample @param {string} text @param {string} digest of it @returns {Comparison}
 */
function compare({ sha256, text: expected, prints }, text, digest) {
	if (prints) {
		const at = difference(text, prints);
		if (at === -1) return { text, verdict: "identical", at };
		return prints.pieces.length > 1 ? { text, verdict: "about", at } : { text, verdict: "other", at: -1 };
	}
	if (sha256 === digest && (expected === undefined || expected === text))
		return { text, verdict: "identical", at: -1 };
	if (expected === undefined) return { text, verdict: "other", at: -1 };
	if (expected === text) return { text, verdict: "digest", at: -1 };
	return { text, expected, verdict: "differs", at: firstDifference(expected, text) };
}

/** The first character in which two texts differ, or at which the shorter one ends. @param {string} a @param {string} b */
function firstDifference(a, b) {
	const one = Array.from(a);
	const other = Array.from(b);
	const at = one.findIndex((character, i) => character !== other[i]);
	return at === -1 ? one.length : at;
}
