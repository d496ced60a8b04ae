// Texts by the browser's engine, in Node: `node engine.mjs reference|wasm FILE [--no-draft | --free-drafts]` reads
// requests, a JSON list of {seed, parameters}, and prints for each its samples as [text, finish reason], their SHA-256,
// and the steps and milliseconds that they took; or the error.

import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { readDraft } from "../../../static/engine/draft.js";
import { RequestError, TextGenerator } from "../../../static/engine/generator.js";
import { ReferenceNetwork } from "../../../static/engine/reference.js";
import { WebAssemblyNetwork } from "../../../static/engine/webassembly.js";
import { readWeights } from "../../../static/engine/weights.js";

const [engine, file, ...options] = process.argv.slice(2);
const weights = readWeights(new Uint8Array(readFileSync(file)).buffer);
const module = new URL("../../../static/engine/network.wasm", import.meta.url);
const network =
	engine === "wasm"
		? new WebAssemblyNetwork(weights, new WebAssembly.Module(readFileSync(module)))
		: new ReferenceNetwork(weights);
let steps = 0;
const forward = network.forward.bind(network);
network.forward = (ids, wanted) => {
	steps += 1;
	return forward(ids, wanted);
};
const generator = new TextGenerator(
	network,
	weights.vocabulary,
	options.includes("--no-draft") ? null : readDraft(weights),
);
if (options.includes("--free-drafts"))
	generator.costs = { observe: () => {}, observeAccepted: () => {}, pays: () => true };

function write(parameters, seed, sample) {
	const parts = [];
	const writing = generator.write(parameters, seed, sample);
	for (let step = writing.next(); ; step = writing.next()) {
		if (step.done) return [parts.join(""), step.value];
		parts.push(...step.value.map(({ char }) => char));
	}
}

function answer({ seed, parameters }) {
	const start = performance.now();
	steps = 0;
	const samples = [];
	for (let sample = 0; sample < parameters.num_samples; sample++) samples.push(write(parameters, seed, sample));
	const sha256 = samples.map(([text]) => createHash("sha256").update(text).digest("hex"));
	return { samples, sha256, steps, milliseconds: performance.now() - start };
}

const answers = JSON.parse(readFileSync(0, "utf8")).map((request) => {
	try {
		return answer(request);
	} catch (error) {
		if (!(error instanceof RequestError)) throw error;
		return { error: error.message };
	}
});
process.stdout.write(JSON.stringify(answers));
