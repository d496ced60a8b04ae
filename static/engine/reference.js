// The network in plain JavaScript: the readable reference of engine/network.c, and what computes where a browser has no
// WebAssembly with SIMD. Each number is bit for bit that of model/backends/cpu, which says why it is computed so.
//
// Arithmetic is that of float32: every operation is rounded by Math.fround, or by being stored in a Float32Array. (A
// double has more than twice as many bits, so rounding its result of one operation again rounds nothing twice.) Products
// are sums of whole numbers, exact in any order. The order of every other sum is that of `sum`.
//
// The one trick: a double is exact up to 53 bits, so it holds two sums of 26 bits each that do not meet, and one
// multiplication makes two products (`Matrix`). That is three times as fast.

import { sineAndCosine } from "./arithmetic.js";
import { numbersOf } from "./weights.js";

const { fround } = Math;
const INT8_LIMIT = 127;
const INT16_LIMIT = 127 * 256;
const TINY = fround(1e-30); // rows whose largest magnitude is below are quantised to zeros
const ROUND = 1.5 * 2 ** 23; // added and subtracted again, it rounds to a whole number, halves to even
const LOG2_E = fround(1.4426950408889634);
const LN2_HIGH = fround(0.693359375);
const LN2_LOW = fround(-2.1219444e-4);
const SMALLEST_EXPONENT = -60;
const PARTIAL_SUMS = 64; // of a sum of floats
const UPPER_UNIT = 2 ** 26; // of the upper sum in a double
const MAX_SUMMANDS = 2048; // products of two bytes whose sum is below half of it
const MAX_ROWS = 8; // ids of one call, and how far a text can be cut back
const COEFFICIENTS = [1 / 720, 1 / 120, 1 / 24, 1 / 6, 1 / 2, 1].map(fround); // of e^x, by falling powers
const GELU_SCALE = fround(0.3275911 / Math.SQRT2);
const GELU = [1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592].map(fround);

/**
 * A product of one layer, and the scales and biases of its outputs.
 * @typedef {{ matrix: Matrix, scales: Float32Array, biases: Float32Array }} Product
 */

/**
 * Places for keys and values: a window and 16 more, in whole sixteens. The order in which softmax is summed depends on
 * it. @param {number} window
 */
export function ringSize(window) {
	return Math.ceil((window + 16) / 16) * 16;
}

/** A network over one text. @implements {EngineNetwork} */
export class ReferenceNetwork {
	/** @param {EngineWeights} weights */
	constructor(weights) {
		this.config = weights.config;
		this.maxRows = MAX_ROWS;
		this.furtherRow = 1;
		this.length = 0;
		const { n_layer: layers, n_head: heads, n_embd: width, block_size: window, positions } = weights.config;
		const floats = (/** @type {string} */ name) => numbersOf(weights, name, Float32Array);
		const products = (/** @type {string} */ name) => {
			const [, outputs, inputs] = weights.tensors[name].shape;
			const whole = numbersOf(weights, name, Int8Array);
			const scales = floats(`${name}_scales`);
			return Array.from({ length: layers }, (_, layer) => ({
				matrix: new Matrix(whole.subarray(layer * outputs * inputs, (layer + 1) * outputs * inputs), inputs),
				scales: scales.subarray(2 * layer * outputs, (2 * layer + 1) * outputs),
				biases: scales.subarray((2 * layer + 1) * outputs, (2 * layer + 2) * outputs),
			}));
		};
		this._tokens = floats("tokens");
		this._positions = positions === "learned" ? floats("positions") : null;
		this._frequencies = positions === "rotary" ? numbersOf(weights, "frequencies", Float64Array) : null;
		this._norms = floats("norms");
		this._qkv = products("qkv");
		this._attentionOutput = products("attention_output");
		this._mlpExpand = products("mlp_expand");
		this._mlpOutput = products("mlp_output");
		this._head = new Matrix(numbersOf(weights, "head", Int8Array), width);
		this._headScales = floats("head_scales");
		this._epsilon = fround(weights.config.norm_epsilon);
		this._qkEpsilon = fround(weights.config.qk_epsilon);
		this._logitScale = fround(weights.config.logit_scale);
		// Position p is at index p mod `_ring`; what was cut off again overwrote nothing that is still attended to.
		this._ring = ringSize(window);
		this._keys = new Int8Array(layers * this._ring * width);
		this._values = new Int8Array(layers * this._ring * width);
		this._keyScales = new Float32Array(layers * heads * this._ring);
		this._valueScales = new Float32Array(layers * heads * this._ring);
	}

	/** @param {number} length */
	truncate(length) {
		this.length = length;
	}

	/** @param {readonly number[]} ids @param {number} wanted @returns {Float32Array[]} */
	forward(ids, wanted) {
		const logits = [];
		for (const [row, id] of ids.entries()) {
			const residual = this._read(id);
			if (row >= ids.length - wanted) logits.push(this._logits(residual));
		}
		return logits;
	}

	/** Appends an id; returns the residual stream after the last layer. @param {number} id */
	_read(id) {
		const { n_layer: layers, n_embd: width, n_head: heads } = this.config;
		const position = this.length;
		const residual = this._tokens.slice(id * width, (id + 1) * width);
		if (this._positions !== null) add(residual, this._positions.subarray(position * width, (position + 1) * width));
		const angles = this._frequencies === null ? null : anglesAt(position, this._frequencies);
		for (let layer = 0; layer < layers; layer++) {
			const qkv = multiply(quantise(this._normalised(residual, 2 * layer)), this._qkv[layer]);
			const attended = new Float32Array(width);
			for (let head = 0; head < heads; head++) this._attend(qkv, attended, layer, head, position, angles);
			add(residual, multiply(quantise(attended), this._attentionOutput[layer]));
			const hidden = multiply(quantise(this._normalised(residual, 2 * layer + 1)), this._mlpExpand[layer]);
			if (this.config.activation === "relu2") squaredRelu(hidden);
			else gelu(hidden);
			add(residual, multiply(quantise(hidden), this._mlpOutput[layer]));
		}
		this.length += 1;
		return residual;
	}

	/** RMSNorm or LayerNorm. @param {Float32Array} x @param {number} index of the norm */
	_normalised(x, index) {
		const width = x.length;
		const weight = this._norms.subarray(2 * index * width, (2 * index + 1) * width);
		const bias = this._norms.subarray((2 * index + 1) * width, (2 * index + 2) * width);
		const mean = this.config.norm === "rmsnorm" ? 0 : fround(sum(x) / width);
		const y = x.map((value) => value - mean);
		const variance = fround(sumOfSquares(y) / width);
		const factor = fround(1 / fround(Math.sqrt(fround(variance + this._epsilon))));
		for (let i = 0; i < width; i++) y[i] = fround(fround(y[i] * factor) * weight[i]) + bias[i];
		return y;
	}

	/**
	 * Writes one head's key and value into the ring, and its attention into `attended`.
	 * @param {Float32Array} qkv @param {Float32Array} attended @param {number} layer @param {number} head
	 * @param {number} position @param {Float32Array[] | null} angles
	 */
	_attend(qkv, attended, layer, head, position, angles) {
		const { n_head: heads, n_embd: width, block_size: window } = this.config;
		const size = width / heads;
		const [query, key, value] = [0, 1, 2].map((i) => qkv.subarray(i * width + head * size).subarray(0, size));
		for (const one of [query, key]) {
			if (angles !== null) rotate(one, angles);
			if (this.config.qk_norm) {
				const meanSquare = fround(sumOfSquares(one) / size);
				const factor = fround(1 / fround(Math.sqrt(fround(meanSquare + this._qkEpsilon))));
				for (let i = 0; i < size; i++) one[i] *= factor;
			}
		}
		const ringIndex = position % this._ring;
		const ofLayer = layer * this._ring * width + head * size; // of ring index 0
		const scales = (layer * heads + head) * this._ring;
		const newKey = quantise(key);
		const newValue = quantise(value);
		this._keys.set(newKey.whole, ofLayer + ringIndex * width);
		this._values.set(newValue.whole, ofLayer + ringIndex * width);
		this._keyScales[scales + ringIndex] = newKey.scale;
		this._valueScales[scales + ringIndex] = newValue.scale;

		// Ring entries in the order of their indices, which is that of the sum below; those outside the window are left 0.
		const { whole, scale } = quantise(query);
		const factor = fround(scale / fround(Math.sqrt(size)));
		const visible = Math.min(position + 1, window);
		const entries = Math.min(position + 1, this._ring);
		const ages = Int32Array.from({ length: entries }, (_, j) => (ringIndex - j + this._ring) % this._ring);
		const scores = new Float32Array(entries);
		let highest = -Infinity;
		for (let j = 0; j < entries; j++) {
			if (ages[j] >= visible) continue;
			let product = 0;
			const start = ofLayer + j * width;
			for (let i = 0; i < size; i++) product += whole[i] * this._keys[start + i];
			scores[j] = fround(product) * fround(factor * this._keyScales[scales + j]);
			highest = Math.max(highest, scores[j]);
		}
		for (let j = 0; j < entries; j++) scores[j] = ages[j] < visible ? exponential(fround(scores[j] - highest)) : 0;
		const norm = sum(scores);
		for (let j = 0; j < entries; j++) scores[j] *= this._valueScales[scales + j];
		const weights = quantiseTwoBytes(scores);
		const rowScale = fround(weights.scale / norm);
		const highSums = new Int32Array(size);
		const lowSums = new Int32Array(size);
		for (let j = 0; j < entries; j++) {
			const high = weights.high[j];
			const low = weights.low[j];
			if (high === 0 && low === 0) continue;
			const start = ofLayer + j * width;
			for (let i = 0; i < size; i++) {
				const stored = this._values[start + i];
				highSums[i] += high * stored;
				lowSums[i] += low * stored;
			}
		}
		for (let i = 0; i < size; i++) {
			attended[head * size + i] = fromTwoBytes(highSums[i], lowSums[i]) * rowScale;
		}
	}

	/** @param {Float32Array} residual */
	_logits(residual) {
		const { n_layer: layers, vocab_size: size } = this.config;
		const { scale, high, low } = quantiseTwoBytes(this._normalised(residual, 2 * layers));
		const factor = fround(scale * this._logitScale);
		const logits = new Float32Array(size);
		const highSums = this._head.multiply(high);
		const lowSums = this._head.multiply(low);
		for (let id = 0; id < size; id++) {
			logits[id] = fround(fromTwoBytes(highSums[id], lowSums[id]) * factor) * this._headScales[id];
		}
		return logits;
	}
}

/** Cosines and sines of a position's rotary angles. @param {number} position @param {Float64Array} frequencies */
export function anglesAt(position, frequencies) {
	const cosines = new Float32Array(frequencies.length);
	const sines = new Float32Array(frequencies.length);
	for (const [i, frequency] of frequencies.entries()) {
		const [sine, cosine] = sineAndCosine(position * frequency);
		cosines[i] = cosine;
		sines[i] = sine;
	}
	return [cosines, sines];
}

/** @param {Float32Array} head @param {Float32Array[]} angles */
function rotate(head, [cosines, sines]) {
	const half = head.length / 2;
	for (let i = 0; i < half; i++) {
		const a = head[i];
		const b = head[half + i];
		head[i] = fround(a * cosines[i]) - fround(b * sines[i]);
		head[half + i] = fround(b * cosines[i]) + fround(a * sines[i]);
	}
}

/** @param {Float32Array} x @param {Float32Array} y */
function add(x, y) {
	for (let i = 0; i < x.length; i++) x[i] += y[i];
}

/** In partial sums side by side, which are then added one after another. @param {Float32Array} values */
function sum(values) {
	const partialSums = new Float32Array(PARTIAL_SUMS);
	for (let i = 0; i < values.length; i++) partialSums[i % PARTIAL_SUMS] += values[i];
	let total = 0;
	for (const one of partialSums) total = fround(total + one);
	return total;
}

/** @param {Float32Array} values */
function sumOfSquares(values) {
	return sum(values.map((value) => value * value));
}

/** @param {Float32Array} values */
function largestMagnitude(values) {
	let largest = 0;
	for (let i = 0; i < values.length; i++) largest = Math.max(largest, Math.abs(values[i]));
	return largest;
}

/** Values as whole multiples, from -127 to 127, of a scale. @param {Float32Array} values */
function quantise(values) {
	const largest = largestMagnitude(values);
	const factor = largest > TINY ? fround(INT8_LIMIT / largest) : 0;
	const whole = new Float64Array(values.length);
	for (let i = 0; i < values.length; i++) whole[i] = fround(fround(values[i] * factor) + ROUND) - ROUND;
	return { whole, scale: fround(largest / INT8_LIMIT) };
}

/** Values as whole multiples of a scale, in two bytes: high · 256 + low. @param {Float32Array} values */
function quantiseTwoBytes(values) {
	const largest = largestMagnitude(values);
	const factor = largest > TINY ? fround(INT16_LIMIT / largest) : 0;
	const high = new Float64Array(values.length);
	const low = new Float64Array(values.length);
	for (let i = 0; i < values.length; i++) {
		const whole = fround(fround(values[i] * factor) + ROUND) - ROUND;
		high[i] = (whole + 128) >> 8;
		low[i] = whole - (high[i] << 8);
	}
	return { high, low, scale: fround(largest / INT16_LIMIT) };
}

/** A float32 from the sums of high and of low bytes. @param {number} high @param {number} low */
function fromTwoBytes(high, low) {
	return fround(fround(fround(high) * 256) + fround(low));
}

/** A transposed matrix of whole numbers, to multiply rows of whole numbers by. */
class Matrix {
	/** @param {Int8Array} whole (outputs, inputs) @param {number} inputs */
	constructor(whole, inputs) {
		this.inputs = inputs;
		this.outputs = whole.length / inputs;
		// Blocks of four pairs of outputs: for each input, the four doubles that hold its weights.
		this._pairs = new Float64Array(Math.ceil(this.outputs / 8) * 4 * inputs);
		for (let output = 0; output < this.outputs; output++) {
			const unit = output % 2 === 0 ? 1 : UPPER_UNIT;
			const start = Math.floor(output / 8) * 4 * inputs + Math.floor((output % 8) / 2);
			for (let i = 0; i < inputs; i++) this._pairs[start + 4 * i] += whole[output * inputs + i] * unit;
		}
	}

	/** The exact product of a row. @param {Float64Array} row of whole numbers from -128 to 127 */
	multiply(row) {
		const pairs = this._pairs;
		const sums = new Int32Array(Math.ceil(this.outputs / 8) * 8);
		for (let first = 0; first < this.inputs; first += MAX_SUMMANDS) {
			const end = Math.min(first + MAX_SUMMANDS, this.inputs);
			for (let output = 0; output < sums.length; output += 8) {
				let at = (output / 2) * this.inputs + 4 * first;
				let a = 0;
				let b = 0;
				let c = 0;
				let d = 0;
				for (let i = first; i < end; i++) {
					const x = row[i];
					a += x * pairs[at];
					b += x * pairs[at + 1];
					c += x * pairs[at + 2];
					d += x * pairs[at + 3];
					at += 4;
				}
				for (const [i, both] of [a, b, c, d].entries()) {
					const upper = Math.round(both / UPPER_UNIT);
					sums[output + 2 * i] += both - upper * UPPER_UNIT;
					sums[output + 2 * i + 1] += upper;
				}
			}
		}
		return sums;
	}
}

/**
 * A row by a layer's product, scaled.
 * @param {{ whole: Float64Array, scale: number }} row @param {Product} product
 */
function multiply({ whole, scale }, { matrix, scales, biases }) {
	const sums = matrix.multiply(whole);
	const result = new Float32Array(matrix.outputs);
	for (let i = 0; i < result.length; i++) {
		result[i] = fround(fround(sums[i]) * fround(scale * scales[i])) + biases[i];
	}
	return result;
}

/** @param {Float32Array} x */
function squaredRelu(x) {
	for (let i = 0; i < x.length; i++) {
		const positive = x[i] > 0 ? x[i] : 0;
		x[i] = positive * positive;
	}
}

/** x times the normal distribution function of x. @param {Float32Array} x */
function gelu(x) {
	for (let i = 0; i < x.length; i++) {
		const tail = exponential(fround(fround(-0.5 * x[i]) * x[i]));
		const t = fround(1 / fround(1 + fround(GELU_SCALE * Math.abs(x[i]))));
		let p = GELU[0];
		for (let k = 1; k < GELU.length; k++) p = fround(fround(p * t) + GELU[k]);
		const beyond = fround(fround(fround(0.5 * p) * t) * tail);
		x[i] *= x[i] > 0 ? fround(1 - beyond) : beyond;
	}
}

const float = new Float32Array(1);
const bits = new Int32Array(float.buffer);

/** e^x in float32, of a number up to 0; 0 from -60 down. @param {number} value */
function exponential(value) {
	const x = value > SMALLEST_EXPONENT ? value : SMALLEST_EXPONENT;
	const n = fround(fround(x * LOG2_E) + ROUND) - ROUND;
	const r = fround(fround(x - fround(n * LN2_HIGH)) - fround(n * LN2_LOW));
	let p = COEFFICIENTS[0];
	for (let k = 1; k < COEFFICIENTS.length; k++) p = fround(fround(p * r) + COEFFICIENTS[k]);
	bits[0] = (n + 127) << 23;
	return x > SMALLEST_EXPONENT ? fround(fround(fround(p * r) + 1) * float[0]) : 0;
}
