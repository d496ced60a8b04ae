// The report on a text: the answer of the server's /report, as model/analysis/measure.py, report.py and summary.py make
// it; its sentences are keys and values, which the page has words for.

import { findRuns, longestRun, nonOverlapping, shareInside } from "./copies.js";
import { ngramBits } from "./ngrams.js";
import { distinct, findLoops } from "./repetition.js";
import { analyse } from "./structure.js";

const MIN_LISTED_RUN = 20; // characters from which a run is listed
const DIGITS = 6; // significant ones, of a figure

/**
 * The report on a text.
 * @param {string} text @param {import("./text_index.js").TextIndex} index @param {EngineWeights} weights
 * @param {number | null} modelBits bits per character under the model, if they are known
 * @returns {Report}
 */
export function makeReport(text, index, weights, modelBits) {
	const characters = Array.from(text);
	const lengths = index.copies.lengths(characters);
	const words = index.words.mark(text);
	const structure = analyse(text, index.speakers);
	const loops = findLoops(characters);
	const longest = longestRun(lengths);
	const figures = figuresOf({ characters, lengths, words, structure, loops, longest, modelBits, weights });
	const heldOut = index.heldOutOf(characters.length);
	const ranges = { ...heldOut?.figures };
	if (heldOut && index.valLoss !== null) {
		ranges.model_bits = { mean: index.valLoss / Math.LN2, low: null, high: null };
	}
	const listed = nonOverlapping(findRuns(lengths, MIN_LISTED_RUN));
	const runs = listed.length > 0 || longest === null ? listed : [longest];
	const { speakers, speeches, lines, form, matched, unmatched } = structure;
	const invented = words.filter(({ real }) => !real);
	return {
		characters: characters.length,
		held_out: heldOut && { characters: heldOut.characters, pieces: heldOut.pieces },
		figures: figuresWithRanges(figures, ranges),
		sentences: {
			copies: aboutCopies(figures, index.copies.shortest, ranges.longest_copy),
			words: aboutWords(figures, words.length, ranges.invented_words),
			structure: aboutStructure(structure),
			quality: aboutQuality(figures, ranges),
		},
		copies: { shortest: index.copies.shortest, lengths, runs: runs.map((run) => ({ ...run, place: null })) },
		words: { count: words.length, invented: /** @type {any[]} */ (invented.map(({ key: _, ...mark }) => mark)) },
		structure: { speakers, speeches, lines, form, matched, unmatched },
		loops: loops.map((loop) => ({ ...loop, count: rounded((loop.end - loop.start) / loop.period) })),
	};
}

/**
 * The figures that a text has, by name, in the server's order.
 * @param {Measured} measured @returns {Record<string, number>}
 */
function figuresOf({ characters, lengths, words, structure, loops, longest, modelBits, weights }) {
	const count = characters.length;
	const share = (/** @type {number} */ part, /** @type {number} */ whole) => (whole > 0 ? part / whole : null);
	const keys = words.map(({ key }) => key);
	const ids = new Map(weights.vocabulary.map((character, id) => [character, id]));
	const known = characters.flatMap((character) => ids.get(character) ?? []);
	const looped = loops.reduce((sum, { start, end }) => sum + end - start, 0);
	const { speakers, speeches, lines, lineLength, verse, unmatched } = structure;
	/** @type {Record<string, number | null>} */
	const figures = {
		copied_20: shareInside(lengths, 20),
		copied_50: shareInside(lengths, 50),
		copied_100: shareInside(lengths, 100),
		longest_copy: longest ? longest.end - longest.start : 0,
		invented_words: share(words.filter(({ real }) => !real).length, words.length),
		invented_speakers: share(speakers.filter((one) => !one.known).length, speakers.length),
		speech_lines: share(lines, speeches),
		line_length: lineLength,
		verse,
		unmatched: share(1000 * unmatched.length, count),
		distinct_1: distinct(keys, 1),
		distinct_2: distinct(keys, 2),
		distinct_3: distinct(keys, 3),
		distinct_4: distinct(keys, 4),
		looped: share(looped, count),
		ngram_bits: ngramBits(weights, known),
		model_bits: modelBits,
	};
	/** @type {Record<string, number>} */
	const found = {};
	for (const [name, value] of Object.entries(figures)) if (value !== null && count > 0) found[name] = value;
	return found;
}

/** @param {Record<string, number>} figures @param {Record<string, HeldOutRange>} ranges */
function figuresWithRanges(figures, ranges) {
	/** @type {Report["figures"]} */
	const all = {};
	for (const name of new Set([...Object.keys(figures), ...Object.keys(ranges)])) {
		const value = figures[name] ?? null;
		const range = ranges[name];
		all[name] = {
			value: rounded(value),
			held_out: range ? { mean: round(range.mean), low: rounded(range.low), high: rounded(range.high) } : null,
			verdict: range && value !== null ? verdictOn(value, range) : null,
		};
	}
	return all;
}

/** Where a figure lies relative to the middle nine tenths of real text. @param {number} value @param {HeldOutRange} range */
function verdictOn(value, { low, high }) {
	if (high === null) return null;
	if (low !== null && value < low) return "below";
	return value > high ? "above" : "within";
}

/** @param {Record<string, number>} figures @param {number} shortest @param {HeldOutRange | undefined} range */
function aboutCopies(figures, shortest, range) {
	const longest = figures.longest_copy ?? 0;
	const share = figures.copied_50 ?? 0;
	if (longest === 0) return sentence("copies.none", { shortest });
	if (share >= 0.5) return sentence("copies.mostly", { share });
	if (!range) return sentence("copies.alone", { longest });
	const kind = verdictOn(longest, range) === "above" ? "more" : "usual";
	return sentence(`copies.${kind}`, { longest, low: range.low, high: range.high });
}

/** @param {Record<string, number>} figures @param {number} count @param {HeldOutRange | undefined} range */
function aboutWords(figures, count, range) {
	const share = figures.invented_words;
	if (share === undefined) return sentence("words.none", {});
	if (share === 0) return sentence("words.real", { count });
	if (!range) return sentence("words.alone", { share });
	const verdict = verdictOn(share, range);
	const kind = verdict === "below" ? "fewer" : verdict === "above" ? "more" : "usual";
	return sentence(`words.${kind}`, { share, mean: range.mean });
}

/** @param {Structure} structure */
function aboutStructure({ speakers, speeches, lines, lineLength, form }) {
	if (speakers.length > 0) {
		const invented = speakers.filter(({ known }) => !known).length;
		return sentence("structure.play", { speeches, speakers: speakers.length, invented });
	}
	if (lineLength === null) return sentence("structure.none", {});
	return sentence(`structure.${form === "verse" ? "verse" : "lines"}`, { lines, length: lineLength });
}

/** @param {Record<string, number>} figures @param {Record<string, HeldOutRange>} ranges */
function aboutQuality(figures, ranges) {
	const looped = figures.looped ?? 0;
	const usualLoops = ranges.looped ? (ranges.looped.high ?? Infinity) : 0;
	if (looped > usualLoops) return sentence("quality.loops", { share: looped });
	const bits = figures.ngram_bits;
	const usual = ranges.ngram_bits;
	if (bits !== undefined && usual) {
		const verdict = verdictOn(bits, usual);
		const kind = verdict === "below" ? "dull" : verdict === "above" ? "wild" : "usual";
		return sentence(`quality.${kind}`, { bits, low: usual.low, high: usual.high });
	}
	if ("distinct_2" in figures) return sentence("quality.varied", { share: figures.distinct_2 });
	return sentence("quality.none", {});
}

/** @param {string} key @param {Record<string, number | null>} values @returns {ReportSentence} */
function sentence(key, values) {
	return { key, values: /** @type {Record<string, number>} */ (values), english: key };
}

/** A figure with six significant digits. @param {number | null} value */
function rounded(value) {
	return value === null ? null : round(value);
}

/** @param {number} value */
function round(value) {
	return Number(value.toPrecision(DIGITS));
}
