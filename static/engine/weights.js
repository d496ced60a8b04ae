// The file of a checkpoint's quantised weights (model/browser_weights.py), checked before anything is computed from it.

import { sha256 } from "./sha256.js";

const FORMAT = 1;
const NUMERICS = "cpu-int8"; // of the texts that the engine writes
const LENGTH_BYTES = 8;
const MAX_HEADER_BYTES = 1 << 24;
const MAX_FILE_BYTES = 1 << 30;
const BYTES = new Map([
	["I64", 8],
	["F64", 8],
	["F32", 4],
	["I8", 1],
	["U8", 1],
]);
const COUNTS = /** @type {const} */ (["vocab_size", "n_layer", "n_head", "n_embd", "block_size"]);
const MAX_COUNT = 1 << 16;
const NUMBERS = /** @type {const} */ (["logit_scale", "norm_epsilon", "qk_epsilon"]);

/** A file that the engine cannot compute from; its message is one sentence. */
export class WeightsError extends Error {}

/**
 * What a file holds.
 * @param {ArrayBuffer} file @param {string | null} checkpoint the identity that it must have, if one is known
 * @returns {EngineWeights}
 */
export function readWeights(file, checkpoint = null) {
	const { description, tensors, data } = readDescribed(file, "weights");
	if (description.format !== FORMAT || description.numerics !== NUMERICS) {
		throw new WeightsError(`The weights are of a format, ${description.format}, that this page does not know.`);
	}
	if (checkpoint !== null && description.checkpoint !== checkpoint) {
		const found = String(description.checkpoint).slice(0, 12);
		throw new WeightsError(`The weights are of another model, ${found}, not ${checkpoint.slice(0, 12)}.`);
	}
	const config = checkedConfig(description.config);
	const vocabulary = description.vocabulary;
	if (!Array.isArray(vocabulary) || vocabulary.length !== config.vocab_size) {
		throw new WeightsError("The weights have another number of characters than their configuration.");
	}
	checkTensors(config, tensors, data.length);
	return { checkpoint: description.checkpoint, numerics: NUMERICS, config, vocabulary, tensors, data };
}

/**
 * A tensor's numbers.
 * @template {Float32Array | Float64Array | Int8Array | Uint8Array | BigInt64Array} Numbers
 * @param {EngineWeights} weights @param {string} name
 * @param {new (buffer: ArrayBuffer) => Numbers} type
 */
export function numbersOf({ tensors, data }, name, type) {
	const [start, end] = tensors[name].data_offsets;
	return new type(data.slice(start, end).buffer);
}

/**
 * The description, the tensors' places and their bytes of a file with a hash over all of it.
 * @param {ArrayBuffer} file @param {string} name of what is in it, for messages
 * @returns {{ description: Record<string, any>, tensors: Record<string, any>, data: Uint8Array<ArrayBuffer> }}
 */
export function readDescribed(file, name) {
	const { header, data } = split(file, name);
	const { content, sha256: expected } = parseObject(header.__metadata__?.soliloquy);
	if (typeof content !== "string") throw new WeightsError(`This is not a file of Soliloquy's ${name}.`);
	if (sha256([new TextEncoder().encode(content), data]) !== expected) {
		throw new WeightsError(`The file of ${name} is damaged: its SHA-256 is another.`);
	}
	const { __metadata__: _, ...tensors } = header;
	return { description: parseObject(content), tensors, data };
}

/** The header and the tensors' bytes of a safetensors file. @param {ArrayBuffer} file @param {string} name */
function split(file, name) {
	const tooShort = `The file of ${name} is not complete.`;
	if (file.byteLength > MAX_FILE_BYTES) throw new WeightsError(`The file of ${name} is too large.`);
	if (file.byteLength < LENGTH_BYTES) throw new WeightsError(tooShort);
	const headerBytes = Number(new DataView(file).getBigUint64(0, true));
	if (headerBytes > MAX_HEADER_BYTES) throw new WeightsError(`This is not a file of Soliloquy's ${name}.`);
	if (LENGTH_BYTES + headerBytes > file.byteLength) throw new WeightsError(tooShort);
	const header = parseObject(new TextDecoder().decode(new Uint8Array(file, LENGTH_BYTES, headerBytes)));
	return { header, data: new Uint8Array(file, LENGTH_BYTES + headerBytes) };
}

/** The object that a text of JSON is; an empty one if it is none. @param {unknown} text @returns {Record<string, any>} */
function parseObject(text) {
	try {
		const value = JSON.parse(String(text));
		return typeof value === "object" && value !== null ? value : {};
	} catch {
		return {};
	}
}

/** @param {any} config @returns {EngineConfig} */
function checkedConfig(config) {
	const isCount = (/** @type {unknown} */ value) => Number.isInteger(value) && Number(value) >= 1;
	const valid =
		typeof config === "object" &&
		config !== null &&
		COUNTS.every((name) => isCount(config[name]) && config[name] <= MAX_COUNT) &&
		NUMBERS.every((name) => Number.isFinite(config[name]) && config[name] > 0) &&
		config.n_embd % config.n_head === 0 &&
		["learned", "rotary"].includes(config.positions) &&
		["layernorm", "rmsnorm"].includes(config.norm) &&
		["gelu", "relu2"].includes(config.activation) &&
		typeof config.qk_norm === "boolean";
	if (!valid) throw new WeightsError("The weights are of a network that this page does not know.");
	return config;
}

/** @param {EngineConfig} config @param {Record<string, EngineTensor>} tensors @param {number} size bytes of data */
function checkTensors(config, tensors, size) {
	for (const [name, dtype, shape] of expectedTensors(
		config,
		"draft_keys" in tensors ? tensors.draft_keys.shape[0] : null,
	)) {
		const tensor = tensors[name];
		const bytes = shape.reduce((product, length) => product * length, BYTES.get(dtype) ?? 0);
		const [start, end] = tensor?.data_offsets ?? [0, 0];
		const fits = Number.isInteger(start) && start >= 0 && end - start === bytes && end <= size;
		if (tensor?.dtype !== dtype || String(tensor.shape) !== String(shape) || !fits) {
			throw new WeightsError(`The weights have no ${name} that fits their configuration.`);
		}
	}
}

/**
 * Name, type and shape of each tensor.
 * @param {EngineConfig} config @param {number | null} contexts of the n-gram table, if there is one
 * @returns {[string, string, number[]][]}
 */
function expectedTensors({ vocab_size, n_layer, n_head, n_embd, block_size, positions }, contexts) {
	/** @type {[string, string, number[]][]} */
	const expected = [
		["tokens", "F32", [vocab_size, n_embd]],
		["norms", "F32", [2 * n_layer + 1, 2, n_embd]],
		["head", "I8", [vocab_size, n_embd]],
		["head_scales", "F32", [vocab_size]],
	];
	if (positions === "learned") expected.push(["positions", "F32", [block_size, n_embd]]);
	else expected.push(["frequencies", "F64", [n_embd / n_head / 2]]);
	/** @type {[string, number, number][]} */
	const products = [
		["qkv", 3 * n_embd, n_embd],
		["attention_output", n_embd, n_embd],
		["mlp_expand", 4 * n_embd, n_embd],
		["mlp_output", n_embd, 4 * n_embd],
	];
	for (const [name, outputs, inputs] of products) {
		expected.push([name, "I8", [n_layer, outputs, inputs]]);
		expected.push([`${name}_scales`, "F32", [n_layer, 2, outputs]]);
	}
	if (contexts !== null) {
		expected.push(["draft_keys", "I64", [contexts]], ["draft_surprisal", "U8", [contexts, vocab_size]]);
	}
	return expected;
}
