// The index of a checkpoint's training text (model/browser_index.py), checked, and the figures of held-out text.

import { logarithm } from "../engine/arithmetic.js";
import { readDescribed, WeightsError } from "../engine/weights.js";
import { CopyIndex } from "./copies.js";
import { WordList } from "./words.js";

const FORMAT = 1;

/** What is known of a training text, as `TextIndex` of model/analysis/text_index.py. */
export class TextIndex {
	/** @param {ArrayBuffer} file @param {string} checkpoint the identity that it must be of */
	constructor(file, checkpoint) {
		const { description, tensors, data } = readDescribed(file, "copies");
		const { format, checkpoint: found, salt, filters, words, speakers, held_out, val_loss, folds } = description;
		if (format !== FORMAT)
			throw new WeightsError(`The index is of a format, ${format}, that this page does not know.`);
		if (found !== checkpoint) throw new WeightsError("The index is of another model.");
		const [start, end] = tensors.cells.data_offsets;
		this.copies = new CopyIndex(salt, filters, data.subarray(start, end));
		this.words = new WordList(words, folds);
		/** @type {string[]} */
		this.speakers = speakers;
		/** @type {HeldOut[]} */
		this.heldOut = held_out;
		/** @type {number | null} */
		this.valLoss = val_loss;
	}

	/**
	 * The figures of real text in pieces of so many characters, interpolated between the sizes that are known.
	 * @param {number} characters @returns {HeldOut | null}
	 */
	heldOutOf(characters) {
		const { heldOut } = this;
		if (heldOut.length === 0) return null;
		const size = Math.max(1, characters);
		const found = heldOut.findIndex((one) => one.characters >= size);
		const above = found === -1 ? heldOut.length : found;
		if (above > 0 && above < heldOut.length) return between(heldOut[above - 1], heldOut[above], size);
		const nearest = heldOut[Math.min(above, heldOut.length - 1)];
		let figures = { ...nearest.figures };
		if (above === heldOut.length) {
			const kept = Object.entries(figures).filter(([name]) => !name.startsWith("distinct_"));
			figures = Object.fromEntries(kept);
		}
		if (heldOut.length > 1 && "longest_copy" in figures) {
			const first = Math.max(0, Math.min(above - 2, heldOut.length - 2));
			const extrapolated = between(heldOut[first], heldOut[first + 1], size).figures;
			figures.longest_copy = within(extrapolated.longest_copy ?? figures.longest_copy, size);
		}
		return { ...nearest, figures };
	}
}

/** @param {HeldOut} smaller @param {HeldOut} larger @param {number} characters @returns {HeldOut} */
function between(smaller, larger, characters) {
	const share = logarithm(characters / smaller.characters) / logarithm(larger.characters / smaller.characters);
	/** @type {Record<string, HeldOutRange>} */
	const figures = {};
	for (const [name, below] of Object.entries(smaller.figures)) {
		const above = larger.figures[name];
		if (!above) continue;
		const bound = (/** @type {number | null} */ one, /** @type {number | null} */ other) => {
			if (one === null || other === null) return null;
			const value = one + share * (other - one);
			return name === "longest_copy" ? roundHalfEven(value) : value; // whole characters
		};
		const mean = below.mean + share * (above.mean - below.mean);
		figures[name] = { mean, low: bound(below.low, above.low), high: bound(below.high, above.high) };
	}
	return { characters, pieces: Math.min(smaller.pieces, larger.pieces), figures };
}

/**
 * Lengths of runs, brought back to those that a text of so many characters can have.
 * @param {HeldOutRange} lengths @param {number} characters @returns {HeldOutRange}
 */
function within(lengths, characters) {
	const low = lengths.low === null ? null : Math.min(Math.max(lengths.low, 0), characters);
	const high = lengths.high === null ? null : Math.min(Math.max(lengths.high, low ?? 0), characters);
	const mean = Math.min(Math.max(lengths.mean, low ?? 0), high ?? characters);
	return { mean, low, high };
}

/** @param {number} value */
function roundHalfEven(value) {
	const floor = Math.floor(value);
	const rest = value - floor;
	if (rest !== 0.5) return Math.round(value);
	return floor % 2 === 0 ? floor : floor + 1;
}
