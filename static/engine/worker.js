// The engine in a thread of its own, so that the page never waits for it. It is given all files by messages: it has the
// right to fetch nothing. See client.js for the messages.

import { makeReport } from "../analysis/report.js";
import { TextIndex } from "../analysis/text_index.js";
import { readDraft } from "./draft.js";
import { RequestError, TextGenerator } from "./generator.js";
import { ReferenceNetwork } from "./reference.js";
import { sha256 } from "./sha256.js";
import { WebAssemblyNetwork } from "./webassembly.js";
import { readWeights, WeightsError } from "./weights.js";

const FLUSH = 25; // milliseconds between two messages with text
const LEAST_PROBABILITY = 2.2250738585072014e-308; // of a character, in a sum of bits: the smallest normal double

/** @type {TextGenerator | null} */
let generator = null;
/** Another one with a network of its own, so that a text may be read while one is written. @type {TextGenerator | null} */
let reader = null;
/** Makes one. @type {(() => TextGenerator) | null} */
let make = null;
/** @type {EngineWeights | null} */
let weights = null;
/** What the training text has, once a reader wants to know. @type {TextIndex | null} */
let index = null;
/** What writes, and what reads: each has one network, so requests wait for those before them. */
const queues = { write: Promise.resolve(), score: Promise.resolve() };
/** Requests that are not wanted any more. @type {Set<number>} */
const stopped = new Set();
const turns = new MessageChannel();
/** Who waits for messages to come in, the longest first. @type {(() => void)[]} */
const waiting = [];
turns.port1.onmessage = () => waiting.shift()?.();

addEventListener("message", ({ data }) => {
	if (data.type === "stop") stopped.add(data.id);
	else if (data.type === "load") attempt(data.id, () => load(data));
	else if (data.type === "index") attempt(data.id, () => loadIndex(data));
	else if (data.type === "report") queues.score = queues.score.then(() => attempt(data.id, () => report(data)));
	else if (data.type === "write") queues.write = queues.write.then(() => attempt(data.id, () => write(data)));
	else queues.score = queues.score.then(() => attempt(data.id, () => score(data)));
});

/** Answers a request; says so if that fails. @param {number} id @param {() => unknown} answer */
async function attempt(id, answer) {
	try {
		if (!stopped.has(id)) await answer();
	} catch (error) {
		const known = error instanceof WeightsError || error instanceof RequestError;
		postMessage({ type: "failed", id, message: known ? error.message : String(error), known });
	}
	stopped.delete(id);
}

/** @param {{ file: ArrayBuffer, code: ArrayBuffer, checkpoint: string }} files */
function load({ file, code, checkpoint }) {
	const read = readWeights(file, checkpoint);
	weights = read;
	const isUsable = globalThis.WebAssembly?.validate(code); // not where there is no SIMD, or a browser is locked down
	const module = isUsable ? new WebAssembly.Module(code) : null;
	const draft = readDraft(read);
	make = () => {
		const network = module === null ? new ReferenceNetwork(read) : new WebAssemblyNetwork(read, module);
		return new TextGenerator(network, read.vocabulary, draft);
	};
	generator = make();
	postMessage({ type: "loaded" });
}

/** @param {{ id: number, file: ArrayBuffer }} files */
function loadIndex({ id, file }) {
	if (weights === null) throw new WeightsError("The weights have not been loaded.");
	index = new TextIndex(file, weights.checkpoint);
	postMessage({ type: "loaded", id });
}

/** The report on a text, with how surprising it is to the model after a prompt. @param {{ id: number, text: string, prompt: string, scored: boolean }} request */
async function report({ id, text, prompt, scored }) {
	if (weights === null || index === null) throw new WeightsError("The index has not been loaded.");
	const known = new Set(weights.vocabulary);
	const isKnown = scored && text !== "" && [...prompt, ...text].every((character) => known.has(character));
	const chars = isKnown ? await read(id, { prompt, text, first: 0, alternatives: 0 }) : [];
	if (chars !== null) postMessage({ type: "done", id, report: makeReport(text, index, weights, bitsOf(chars)) });
}

/** Mean bits per character under the model; null for none. @param {Character[]} chars */
function bitsOf(chars) {
	const bits = chars.reduce((sum, { prob }) => sum - Math.log2(Math.max(prob, LEAST_PROBABILITY)), 0);
	return bits ? bits / chars.length : null;
}

/** What the model makes of a text after a prompt. @param {{ id: number, body: ScoreBody }} request */
async function score({ id, body }) {
	const chars = await read(id, body);
	if (chars !== null) postMessage({ type: "done", id, chars: chars.slice(body.first) });
}

/** A text's characters after a prompt, as the model sees them; null if it is not wanted any more. @param {number} id @param {ScoreBody} body */
async function read(id, { prompt, text, alternatives }) {
	if (make === null) throw new WeightsError("The weights have not been loaded.");
	reader ??= make();
	const length = Array.from(text).length;
	const sampling = { temperature: 0, top_k: null, top_p: null, min_p: null };
	const parameters = { prompt, max_new_tokens: length, num_samples: 1, stop: [], ...sampling };
	/** @type {Character[]} */
	const chars = [];
	let paused = performance.now();
	for (const some of reader.write(parameters, 0, 0, alternatives, text)) {
		chars.push(...some);
		if (performance.now() - paused < FLUSH) continue;
		await turn();
		if (stopped.has(id)) return null;
		paused = performance.now();
	}
	return chars;
}

/**
 * With `reported` and an index, each sample ends with its report, and with the marks of what is copied and invented.
 * @param {{ id: number, seed: number, parameters: EngineParameters, alternatives: number, reported: boolean }} request
 */
async function write({ id, seed, parameters, alternatives, reported }) {
	if (generator === null) throw new WeightsError("The weights have not been loaded.");
	const samples = [];
	/** @type {Report[]} */
	const reports = [];
	for (let sample = 0; sample < parameters.num_samples; sample++) {
		/** @type {Character[]} */
		let chars = [];
		/** @type {Character[]} */
		const all = [];
		let text = "";
		let at = 0;
		let flushed = 0;
		const writing = generator.write(parameters, seed, sample, alternatives);
		for (let step = writing.next(); ; step = writing.next()) {
			if (!step.done) chars.push(...step.value);
			if (!step.done && performance.now() - flushed < FLUSH) continue;
			const part = chars.map(({ char }) => char).join("");
			if (part) postMessage({ type: "text", id, data: { sample, index: at, text: part, chars } });
			at += chars.length;
			if (reported) all.push(...chars);
			text += part;
			chars = [];
			flushed = performance.now();
			await turn();
			if (stopped.has(id)) return;
			if (!step.done) continue;
			if (reported && index !== null && weights !== null) {
				const made = makeReport(text, index, weights, bitsOf(all));
				const marks = { copied: made.copies.lengths, invented: made.words.invented };
				postMessage({ type: "text", id, data: { sample, index: 0, text: "", chars: [], ...marks } });
				reports.push(made);
			}
			postMessage({ type: "end", id, data: { sample, finish_reason: step.value } });
			break;
		}
		samples.push({ index: sample, sha256: sha256([new TextEncoder().encode(text)]) });
	}
	postMessage({ type: "done", id, samples, reports: reports.length > 0 ? reports : undefined });
}

/** Lets messages in that have come meanwhile. @returns {Promise<void>} */
function turn() {
	return new Promise((resolve) => {
		waiting.push(resolve);
		turns.port2.postMessage(null);
	});
}
