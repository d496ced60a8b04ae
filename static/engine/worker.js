// The engine in a thread of its own, so that the page never waits for it. It is given all files by messages: it has the
// right to fetch nothing. See client.js for the messages.

import { readDraft } from "./draft.js";
import { RequestError, TextGenerator } from "./generator.js";
import { ReferenceNetwork } from "./reference.js";
import { sha256 } from "./sha256.js";
import { WebAssemblyNetwork } from "./webassembly.js";
import { readWeights, WeightsError } from "./weights.js";

const FLUSH = 25; // milliseconds between two messages with text

/** @type {TextGenerator | null} */
let generator = null;
/** Another one with a network of its own, so that a text may be read while one is written. @type {TextGenerator | null} */
let reader = null;
/** Makes one. @type {(() => TextGenerator) | null} */
let make = null;
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
	const weights = readWeights(file, checkpoint);
	const isUsable = globalThis.WebAssembly?.validate(code); // not where there is no SIMD, or a browser is locked down
	const module = isUsable ? new WebAssembly.Module(code) : null;
	const draft = readDraft(weights);
	make = () => {
		const network = module === null ? new ReferenceNetwork(weights) : new WebAssemblyNetwork(weights, module);
		return new TextGenerator(network, weights.vocabulary, draft);
	};
	generator = make();
	postMessage({ type: "loaded" });
}

/** What the model makes of a text after a prompt. @param {{ id: number, body: ScoreBody }} request */
async function score({ id, body: { prompt, text, first, alternatives } }) {
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
		if (stopped.has(id)) return;
		paused = performance.now();
	}
	postMessage({ type: "done", id, chars: chars.slice(first) });
}

/** @param {{ id: number, seed: number, parameters: EngineParameters, alternatives: number }} request */
async function write({ id, seed, parameters, alternatives }) {
	if (generator === null) throw new WeightsError("The weights have not been loaded.");
	const samples = [];
	for (let sample = 0; sample < parameters.num_samples; sample++) {
		/** @type {Character[]} */
		let chars = [];
		let text = "";
		let index = 0;
		let flushed = 0;
		const writing = generator.write(parameters, seed, sample, alternatives);
		for (let step = writing.next(); ; step = writing.next()) {
			if (!step.done) chars.push(...step.value);
			if (!step.done && performance.now() - flushed < FLUSH) continue;
			const part = chars.map(({ char }) => char).join("");
			if (part) postMessage({ type: "text", id, data: { sample, index, text: part, chars } });
			index += chars.length;
			text += part;
			chars = [];
			flushed = performance.now();
			await turn();
			if (stopped.has(id)) return;
			if (!step.done) continue;
			postMessage({ type: "end", id, data: { sample, finish_reason: step.value } });
			break;
		}
		samples.push({ index: sample, sha256: sha256([new TextEncoder().encode(text)]) });
	}
	postMessage({ type: "done", id, samples });
}

/** Lets messages in that have come meanwhile. @returns {Promise<void>} */
function turn() {
	return new Promise((resolve) => {
		waiting.push(resolve);
		turns.port2.postMessage(null);
	});
}
