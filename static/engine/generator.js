// Texts from a network, as model/generation writes them: the window of the prompt, draws with their noise, draft tokens,
// stop strings. What is written depends on the request alone.

import { detailsOf } from "./logprobs.js";
import { gumbelNoise } from "./noise.js";
import { draw } from "./sampler.js";
import { StepCosts } from "./step_costs.js";

const NOISE_KEPT = 64; // positions

/** A request that no text can be written for; its message is one sentence. */
export class RequestError extends Error {}

/** Writes texts with one network. */
export class TextGenerator {
	/**
	 * @param {EngineNetwork} network @param {readonly string[]} vocabulary
	 * @param {import("./draft.js").Draft | null} draft where draft tokens come from
	 */
	constructor(network, vocabulary, draft = null) {
		this._network = network;
		this._vocabulary = vocabulary;
		this._ids = new Map(vocabulary.map((character, id) => [character, id]));
		this._draft = draft;
		this.costs = new StepCosts(network.furtherRow);
	}

	/**
	 * Writes one sample of a request; yields its characters, some at a time, and returns why it ended.
	 * @param {EngineParameters} parameters @param {number} seed @param {number} sample
	 * @param {number} alternatives how many of the likeliest characters are listed with each
	 * @param {string | null} given a text that is not drawn but read, to learn what the model makes of its characters
	 * @returns {Generator<Character[], "length" | "stop">}
	 */
	*write(parameters, seed, sample, alternatives = 0, given = null) {
		const network = this._network;
		const window = network.config.block_size;
		const ids = this._encode(parameters.prompt);
		const promptLength = ids.length;
		const givenIds = given === null ? null : this._encode(given);
		const stop = new StopStrings(parameters.stop, this._ids);
		const noise = new SampleNoise(seed, sample, this._vocabulary.length, parameters.temperature);
		network.truncate(0);
		let unread = ids.slice(-window);
		while (true) {
			if (network.config.positions === "learned" && network.length === window) {
				// A window of learned positions cannot roll: its newer half is read again.
				network.truncate(0);
				unread = ids.slice(-Math.floor(window / 2));
			}
			while (unread.length > network.maxRows) {
				network.forward(unread.slice(0, network.maxRows), 0);
				unread = unread.slice(network.maxRows);
			}
			const written = ids.length - promptLength;
			const room = unread.length === 1 ? this._room(parameters.max_new_tokens - written) : 0;
			const { tokens, expected } =
				givenIds === null
					? this._propose(ids, noise, written, parameters.temperature, room)
					: { tokens: givenIds.slice(written, written + room), expected: 0 };
			const logits = this._forward([...unread, ...tokens], 1 + tokens.length);
			let drawn = 0;
			while (drawn <= tokens.length) {
				const id = givenIds?.[written + drawn] ?? draw(logits[drawn], parameters, noise.at(written + drawn));
				ids.push(id);
				drawn += 1;
				const details = detailsOf(logits[drawn - 1], id, this._vocabulary, alternatives);
				const part = stop.accept(details, written + drawn === parameters.max_new_tokens);
				if (part.characters.length > 0) yield part.characters;
				if (part.finishReason !== null) return part.finishReason;
				if (tokens[drawn - 1] !== id) break;
			}
			if (tokens.length > 0 && givenIds === null) this.costs.observeAccepted(expected - 1, drawn - 1);
			network.truncate(network.length - (tokens.length + 1 - drawn));
			unread = ids.slice(-1);
		}
	}

	/** @param {string} prompt */
	_encode(prompt) {
		if (prompt === "") throw new RequestError("The text to go on from is empty.");
		return Array.from(prompt, (character) => {
			const id = this._ids.get(character);
			if (id === undefined) throw new RequestError(`The model has never seen ${JSON.stringify(character)}.`);
			return id;
		});
	}

	/** How many draft tokens there is room for after the last id. @param {number} remaining characters to write */
	_room(remaining) {
		const { config, length, maxRows } = this._network;
		const inWindow = config.positions === "learned" ? config.block_size - length : Infinity;
		return Math.min(remaining, inWindow, maxRows) - 1;
	}

	/**
	 * As many draft tokens as pay, and the characters that a step is expected to give with them.
	 * @param {readonly number[]} ids @param {SampleNoise} noise @param {number} position of the next draw
	 * @param {number} temperature @param {number} room
	 */
	_propose(ids, noise, position, temperature, room) {
		/** @type {number[]} */
		const tokens = [];
		let expected = 1;
		if (this._draft === null) return { tokens, expected };
		const context = ids.slice(-Math.max(1, this._draft.maxContext));
		let allAccepted = 1;
		while (tokens.length < room) {
			const { id, probability } = this._draft.propose(context, noise.at(position + tokens.length), temperature);
			allAccepted *= probability;
			if (!this.costs.pays(tokens.length, expected, allAccepted)) break;
			expected += allAccepted;
			tokens.push(id);
			context.push(id);
		}
		return { tokens, expected };
	}

	/** @param {number[]} ids @param {number} wanted */
	_forward(ids, wanted) {
		const start = performance.now();
		const logits = this._network.forward(ids, wanted);
		if (!logits.every(areFinite)) throw new RequestError("The model's logits are not finite.");
		if (ids.length === wanted) this.costs.observe(ids.length, performance.now() - start);
		return logits;
	}
}

/** @param {Float32Array} values */
function areFinite(values) {
	for (let i = 0; i < values.length; i++) if (!Number.isFinite(values[i])) return false;
	return true;
}

/** The noise of a sample's draws; what was computed for a draft token is still there when its position is drawn. */
class SampleNoise {
	/** @param {number} seed @param {number} sample @param {number} size @param {number} temperature */
	constructor(seed, sample, size, temperature) {
		this._seed = seed;
		this._sample = sample;
		this._size = size;
		this._temperature = temperature;
		/** @type {Map<number, Float64Array>} */
		this._computed = new Map();
	}

	/** Of the draw at a position; null at temperature 0, which takes the likeliest. @param {number} position */
	at(position) {
		if (this._temperature === 0) return null;
		const known = this._computed.get(position);
		if (known !== undefined) return known;
		if (this._computed.size >= NOISE_KEPT) this._computed.clear();
		const noise = gumbelNoise(this._seed, this._sample, position, this._size);
		this._computed.set(position, noise);
		return noise;
	}
}

/** Holds text back that may be the beginning of a stop string, as `TextSequence` does. */
class StopStrings {
	/** @param {readonly string[]} stop @param {Map<string, number>} ids of the characters that can be written */
	constructor(stop, ids) {
		const canBeWritten = (/** @type {string[]} */ characters) => characters.every((one) => ids.has(one));
		this._stop = stop.map((text) => Array.from(text)).filter((text) => text.length > 0 && canBeWritten(text));
		/** @type {Character[]} */
		this._pending = [];
	}

	/**
	 * The characters that one more releases, and why the text ends there if it does.
	 * @param {Character} character @param {boolean} isLast
	 * @returns {{ characters: Character[], finishReason: "length" | "stop" | null }}
	 */
	accept(character, isLast) {
		this._pending.push(character);
		const complete = this._stop.filter((text) => this._endsWith(text)).map((text) => text.length);
		if (complete.length > 0) return { characters: this._release(Math.max(...complete)), finishReason: "stop" };
		if (isLast) return { characters: this._release(0), finishReason: "length" };
		let held = 0;
		for (const text of this._stop) {
			for (let length = text.length - 1; length > held; length--) {
				if (this._endsWith(text.slice(0, length))) held = length;
			}
		}
		return { characters: this._release(held), finishReason: null };
	}

	/** @param {string[]} text */
	_endsWith(text) {
		const start = this._pending.length - text.length;
		return start >= 0 && text.every((character, i) => this._pending[start + i].char === character);
	}

	/** All pending characters but the last. @param {number} held */
	_release(held) {
		return this._pending.splice(0, this._pending.length - held);
	}
}
