// Text appears at the speed that the reader chose, however it comes from the network: evenly, a little in each frame.

import { textOf } from "../editor/document.js";

const MAX_REST = 30; // characters of a word that room is kept for
const DELAY = 0.1; // seconds over which what has come is spread at full speed
const INTERVAL = 0.025; // seconds between two changes of the text at full speed: each costs the browser a layout
/** Characters a second. @type {Record<Speed, number>} */
const RATES = { step: 0, slow: 8, reading: 30, full: Infinity };

export class SmoothStream {
	/** What has come and is not shown yet. @type {Map<Run, { editor: Growing, cells: WrittenCell[] }>} */
	#waiting = new Map();
	#frame = 0;
	#last = 0;
	/** The part of a character that was due in the last frame. */
	#due = 0;
	/** @type {Speed} */
	#speed = "full";
	/** @type {(() => void)[]} */
	#onDrained = [];
	#reducedMotion = matchMedia("(prefers-reduced-motion: reduce)");
	/** Called when something was shown or has come to wait. */
	onChange = () => {};

	constructor() {
		document.addEventListener("visibilitychange", () => {
			if (document.hidden && this.#speed !== "step") this.flush(); // it gets no frames, but its text goes on
		});
	}

	get speed() {
		return this.#speed;
	}

	set speed(speed) {
		this.#speed = speed;
		if (this.#waiting.size) this.#start();
	}

	/**
	 * Appends `cells` to an editor's text, some of them at a time.
	 * @param {Growing} editor @param {WrittenCell[]} cells @param {Run} run
	 */
	push(editor, cells, run) {
		const waiting = this.#waiting.get(run);
		if (waiting) waiting.cells.push(...cells);
		else if (cells.length) this.#waiting.set(run, { editor, cells: [...cells] });
		this.#start();
		this.onChange();
	}

	#start() {
		const still = this.#speed === "full" && this.#reducedMotion.matches;
		if (still || (document.hidden && this.#speed !== "step")) this.flush();
		else if (!this.#frame && this.#speed !== "step") {
			if (performance.now() - this.#last > 1000 * DELAY) this.#last = performance.now() - 1000 * INTERVAL;
			this.#frame = requestAnimationFrame((now) => this.#tick(now));
		}
	}

	/** Shows the next character of each text. */
	step() {
		this.#show(() => 1);
	}

	/** The character that is shown next in a text, if it has come. @param {Branch} branch */
	next({ editor }) {
		return [...this.#waiting.values()].find((waiting) => waiting.editor === editor)?.cells[0] ?? null;
	}

	/** Shows all that waits, now. */
	flush() {
		this.#show(Infinity);
	}

	/** Forgets what waits of some runs; returns how much that was of each. @param {Run[]} runs @returns {Map<Run, number>} */
	discard(runs) {
		const counts = new Map();
		for (const run of runs) {
			const waiting = this.#waiting.get(run);
			if (waiting) counts.set(run, waiting.cells.length);
			this.#waiting.delete(run);
		}
		if (!this.#waiting.size) this.#end();
		this.onChange();
		return counts;
	}

	/** Resolves when nothing waits any more. @returns {Promise<void>} */
	drained() {
		if (!this.#waiting.size) return Promise.resolve();
		return new Promise((resolve) => this.#onDrained.push(resolve));
	}

	/** @param {number} now */
	#tick(now) {
		this.#frame = 0;
		const seconds = Math.max(0.004, (now - this.#last) / 1000);
		if (this.#speed === "full" && seconds < INTERVAL) {
			this.#frame = requestAnimationFrame((later) => this.#tick(later));
			return;
		}
		this.#last = now;
		if (this.#speed === "full") {
			this.#show((waiting) => Math.max(1, Math.ceil((waiting * seconds) / DELAY)));
		} else {
			this.#due += seconds * RATES[this.#speed];
			const whole = Math.floor(this.#due);
			this.#due -= whole;
			if (whole) this.#show(() => whole);
		}
		if (this.#waiting.size) this.#start();
	}

	/** Shows `count`, or what it makes of the number that waits, of each text. @param {number | ((waiting: number) => number)} count */
	#show(count) {
		for (const [run, waiting] of this.#waiting) {
			const { editor, cells } = waiting;
			const room = Math.min(cells.length, typeof count === "number" ? count : count(cells.length));
			if (room === cells.length) this.#waiting.delete(run);
			else waiting.cells = cells.slice(room);
			editor.append(cells.slice(0, room), run, restOfWord(cells, room));
		}
		if (!this.#waiting.size) this.#end();
		this.onChange();
	}

	#end() {
		cancelAnimationFrame(this.#frame);
		this.#frame = 0;
		this.#due = 0;
		for (const resolve of this.#onDrained.splice(0)) resolve();
	}
}

/** What follows the first `count` cells of the word that they end in. @param {WrittenCell[]} cells @param {number} count */
function restOfWord(cells, count) {
	let end = count;
	if (/\S/.test(cells[count - 1]?.c ?? " ")) {
		while (end < cells.length && end < count + MAX_REST && /\S/.test(cells[end].c)) end += 1;
	}
	return textOf(cells.slice(count, end));
}
