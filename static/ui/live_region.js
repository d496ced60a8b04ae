// What a screen reader hears of a growing text: whole sentences, the latest, and never more than can be spoken.

import { make } from "./dom.js";

const PAUSE = 1500; // milliseconds between two messages
const MAX_MESSAGE = 200; // characters
const MAX_MESSAGES = 20;
const SENTENCES = /[^.!?;:]*[.!?;:]+\s/g;

export class Announcer {
	#text = "";
	#last = 0;

	/** @param {HTMLElement} region */
	constructor(region) {
		this.region = region;
	}

	/**
	 * Adds text that has been written; sentences are said when they are whole, the latest of them if there are many.
	 * @param {string} text
	 */
	add(text) {
		this.#text += text;
		if (performance.now() - this.#last < PAUSE) return;
		const sentences = this.#text.match(SENTENCES) ?? [];
		if (!sentences.length) return;
		this.#text = this.#text.slice(sentences.join("").length);
		this.#last = performance.now();
		this.#say(latest(sentences));
	}

	/** Says the end of the text, whether its last sentence is whole or not, and `message`. @param {string} message */
	finish(message) {
		const sentences = this.#text.match(SENTENCES) ?? [];
		this.#say(latest([...sentences, this.#text.slice(sentences.join("").length)]));
		this.reset();
		this.#say(message);
	}

	/** Forgets what has not been said, as the next text is another one. */
	reset() {
		this.#text = "";
	}

	/** @param {string} message */
	#say(message) {
		if (!message.trim()) return;
		this.region.append(make("p", "", message));
		while (this.region.childElementCount > MAX_MESSAGES) this.region.firstElementChild?.remove();
	}
}

/** As many of the last sentences as fit in a message. @param {string[]} sentences */
function latest(sentences) {
	let message = "";
	for (const sentence of sentences.toReversed()) {
		if (message && message.length + sentence.length > MAX_MESSAGE) break;
		message = sentence + message;
	}
	return message.slice(-MAX_MESSAGE);
}
