// The network in WebAssembly (engine/network.c): several times as fast as reference.js, and bit for bit the same.

import { anglesAt, ringSize } from "./reference.js";
import { numbersOf, WeightsError } from "./weights.js";

const MAX_ROWS = 8; // as in network.c
const FURTHER_ROW = 0.35; // a first guess
const PRODUCTS = ["qkv", "attention_output", "mlp_expand", "mlp_output"]; // by their place in a layer

/**
 * What network.c exports. Addresses are numbers.
 * @typedef {object} Exports
 * @property {WebAssembly.Memory} memory
 * @property {(bytes: number) => number} allocate
 * @property {(...shape: number[]) => void} configure_shape
 * @property {(...variants: number[]) => void} configure_variants
 * @property {(tokens: number, positions: number, norms: number) => void} set_embeddings
 * @property {(matrix: number, scales: number) => number} set_head
 * @property {(place: number, matrices: number, scales: number) => number} set_product
 * @property {() => number} prepare
 * @property {() => number} ids_address
 * @property {() => number} angles_address
 * @property {() => number} logits_address
 * @property {(rows: number, position: number, wanted: number) => void} forward
 */

/** A network over one text. @implements {EngineNetwork} */
export class WebAssemblyNetwork {
	/**
	 * @param {EngineWeights} weights @param {WebAssembly.Module} module that was compiled from network.wasm
	 */
	constructor(weights, module) {
		this.config = weights.config;
		this.maxRows = MAX_ROWS;
		this.furtherRow = FURTHER_ROW;
		this.length = 0;
		const { config } = weights;
		const exports = /** @type {Exports} */ (/** @type {unknown} */ (new WebAssembly.Instance(module).exports));
		this._exports = exports;
		const copy = (/** @type {string} */ name, address = 0) => {
			if (!(name in weights.tensors)) return 0;
			const [start, end] = weights.tensors[name].data_offsets;
			const to = address || allocated(exports.allocate(end - start));
			new Uint8Array(exports.memory.buffer, to).set(weights.data.subarray(start, end));
			return to;
		};
		const { n_layer, n_head, n_embd, block_size, vocab_size } = config;
		exports.configure_shape(n_layer, n_head, n_embd, block_size, vocab_size, ringSize(block_size));
		exports.configure_variants(
			Number(config.positions === "rotary"),
			Number(config.qk_norm),
			Number(config.norm === "rmsnorm"),
			Number(config.activation === "relu2"),
			config.logit_scale,
			config.norm_epsilon,
			config.qk_epsilon,
		);
		exports.set_embeddings(copy("tokens"), copy("positions"), copy("norms"));
		// Matrices are packed on their way: they share the place where they stand before.
		const sizes = ["head", ...PRODUCTS].map((name) => weights.tensors[name].data_offsets);
		const unpacked = allocated(exports.allocate(Math.max(...sizes.map(([start, end]) => end - start))));
		allocated(exports.set_head(copy("head", unpacked), copy("head_scales")));
		for (const [i, name] of PRODUCTS.entries()) {
			allocated(exports.set_product(i, copy(name, unpacked), copy(`${name}_scales`)));
		}
		allocated(exports.prepare());
		const { buffer } = exports.memory;
		this._frequencies = config.positions === "rotary" ? numbersOf(weights, "frequencies", Float64Array) : null;
		this._ids = new Int32Array(buffer, exports.ids_address(), MAX_ROWS);
		this._angles = new Float32Array(buffer, exports.angles_address(), (MAX_ROWS * n_embd) / n_head);
		this._logits = new Float32Array(buffer, exports.logits_address(), MAX_ROWS * vocab_size);
	}

	/** @param {number} length */
	truncate(length) {
		this.length = length;
	}

	/** @param {readonly number[]} ids @param {number} wanted @returns {Float32Array[]} */
	forward(ids, wanted) {
		const size = this.config.vocab_size;
		this._ids.set(ids);
		if (this._frequencies !== null) {
			for (let row = 0; row < ids.length; row++) {
				const [cosines, sines] = anglesAt(this.length + row, this._frequencies);
				this._angles.set(cosines, 2 * row * cosines.length);
				this._angles.set(sines, (2 * row + 1) * sines.length);
			}
		}
		this._exports.forward(ids.length, this.length, wanted);
		this.length += ids.length;
		const logits = [];
		for (let row = ids.length - wanted; row < ids.length; row++) {
			logits.push(this._logits.subarray(row * size, (row + 1) * size));
		}
		return logits;
	}
}

/** @param {number} address */
function allocated(address) {
	if (address === 0) throw new WeightsError("This device has not enough memory for the model.");
	return address;
}
