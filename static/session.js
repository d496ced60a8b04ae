// Has the model write: into a text of the page (a branch) and others beside it, into a fork, into several texts at once,
// or what a shared link describes. Knows nothing of the buttons.

import { generate, GenerationRequest, read } from "./api/generation.js";
import { typed } from "./editor/document.js";
import { SmoothStream } from "./ui/smooth_stream.js";

/** The request that wrote the last of a text's written characters, or null. @param {Branch} branch */
export function requestOf(branch) {
	return branch.doc.cells.findLast(({ run }) => run)?.run?.request ?? null;
}

const CANDIDATES = 5; // shown before each character, step by step

export class Session {
	#options;
	#smooth = new SmoothStream();
	/** What is being written, in the order in which it was begun. @type {Set<Writing>} */
	#writings = new Set();

	/** @param {SessionOptions} options */
	constructor(options) {
		this.#options = options;
		this.#smooth.onChange = () => options.onShow();
	}

	/** How fast what has come is shown. @param {Speed} speed */
	set speed(speed) {
		this.#smooth.speed = speed;
	}

	/** Whether each character waits for `step`. */
	get stepping() {
		return this.writing && this.#smooth.speed === "step";
	}

	/** Shows the next character of each text that is written step by step. */
	step() {
		this.#smooth.step();
	}

	/** The character that is shown next in a text, or null. @param {Branch} branch */
	next(branch) {
		return this.#smooth.next(branch);
	}

	get writing() {
		return this.#writings.size > 0;
	}

	/** True from a request until the server begins to answer it. */
	get waiting() {
		return [...this.#writings].some(({ branches, lost }) => branches.size === 0 && !lost);
	}

	/** Whether what is being written is a recording. */
	get playing() {
		return [...this.#writings].some(({ recorded }) => recorded);
	}

	/** How what is being written goes, or null; of several requests the sums, and the seed of the first. @returns {Figures | null} */
	get figures() {
		const [oldest] = this.#writings;
		if (!oldest) return null;
		let count = 0;
		let speed = 0;
		for (const { request, started } of this.#writings) {
			const seconds = (performance.now() - started) / 1000;
			count += request.characters;
			speed += request.timing?.characters_per_second ?? request.characters / seconds;
		}
		return { count, speed, first: oldest.first, seed: oldest.request.seed };
	}

	/**
	 * Continues a text; samples beyond the first become texts beside it. Returns the request.
	 * @param {Branch} branch @param {Partial<Settings>} given Settings that override the form's.
	 */
	write(branch, given = {}) {
		const retryBusy = this.stop(); // a server that is busy with what was stopped will soon have a free slot
		return this.#write(branch, given, retryBusy);
	}

	/** Continues several texts at once, each with one sample. @param {Branch[]} branches */
	async writeAll(branches) {
		const retryBusy = this.stop();
		await Promise.all(branches.map((branch) => this.#write(branch, { num_samples: 1 }, retryBusy)));
	}

	/** @param {Branch} branch @param {Partial<Settings>} given @param {boolean} retryBusy */
	async #write(branch, given, retryBusy) {
		const { card, settings, here, onState } = this.#options;
		const { seed = null, ...fields } = { ...settings(), ...given };
		const request = new GenerationRequest(branch.doc.text, fields, seed);
		const writing = this.#start(request, false);
		onState("waiting");
		/** @type {StreamOptions["onWait"]} */
		const onWait = (milliseconds, busy) => {
			writing.lost = true;
			onState(busy ? "busy" : "lost", { seconds: milliseconds / 1000 });
		};
		const alternatives = this.#smooth.speed === "step" ? CANDIDATES : 0;
		const { signal } = writing.controller;
		const options = { signal, leave: writing.leaving.signal, retryBusy, onWait, alternatives, here: here() };
		await this.#follow(writing, branch, generate(request, card, options));
		return request;
	}

	/**
	 * Shows a recording being written in the place of a text, as if it were now; `stop` ends it where it is.
	 * @param {Branch} branch @param {Recording} recording
	 */
	async play(branch, { prompt, parameters, events }) {
		branch.doc.splice(0, branch.doc.length, typed(prompt));
		const request = new GenerationRequest(prompt, parameters);
		await this.#follow(this.#start(request, true), branch, read(request, this.#options.card, events));
	}

	/** @param {GenerationRequest} request @param {boolean} recorded @returns {Writing} */
	#start(request, recorded) {
		const controller = new AbortController();
		const started = performance.now();
		const leaving = new AbortController();
		const branches = new Map();
		const writing = {
			request,
			controller,
			leaving,
			recorded,
			branches,
			started,
			first: null,
			lost: false,
			place: 0,
		};
		this.#writings.add(writing);
		return writing;
	}

	/**
	 * Shows what comes until its end, unless it is stopped before.
	 * @param {Writing} writing @param {Branch} branch @param {AsyncGenerator<GenerationEvent>} events
	 */
	async #follow(writing, branch, events) {
		try {
			for await (const event of events) {
				if (!this.#writings.has(writing)) continue;
				if (event.type === "start") this.#begin(writing, branch);
				else if (event.type === "waiting") this.#moveTo(writing, event.place);
				else this.#append(writing, event.run, event.cells, event.marked);
			}
			await this.#smooth.drained();
			if (this.#writings.has(writing)) this.#end([writing], "done");
		} catch (error) {
			if (this.#writings.has(writing)) {
				this.#smooth.flush();
				this.#end([writing], "failed");
				this.#options.onProblem(error);
			}
		}
	}

	/**
	 * Stops the writing, if any, here and on the server. What has come is shown at full speed; at another one the text ends
	 * where the reader saw it end. Returns whether there was any.
	 */
	stop() {
		return this.#stop([...this.#writings]);
	}

	/** @param {Writing[]} writings */
	#stop(writings) {
		if (!writings.length) return false;
		for (const { controller } of writings) controller.abort();
		if (this.#smooth.speed === "full") this.#smooth.flush();
		const runs = writings.flatMap(({ request }) => request.runs);
		for (const [run, count] of this.#smooth.discard(runs)) {
			run.cells.length -= count;
			run.finish = null;
			run.request.receipt = null; // of a longer text
			run.request.reports = null;
		}
		this.#end(writings, "stopped");
		return true;
	}

	/** Goes on on this device with what the server was writing. */
	goOnHere() {
		for (const { leaving } of this.#writings) leaving.abort();
	}

	/** Shows all that has come, at once. */
	showAll() {
		this.#smooth.flush();
	}

	/** Whether this text is being written. @param {Branch} branch */
	isWriting(branch) {
		return this.#writingsIn(branch).length > 0;
	}

	/** @param {Branch} branch */
	#writingsIn(branch) {
		return [...this.#writings].filter(({ branches }) => [...branches.values()].includes(branch));
	}

	/**
	 * Stops the writing of this text, if it is being written, before someone edits it. Returns whether it was.
	 * @param {Branch} branch
	 */
	stopIn(branch) {
		return this.#stop(this.#writingsIn(branch));
	}

	/** Stops the writing if none of its texts is on the page any more. */
	stopUnseen() {
		const { branches } = this.#options.tree;
		const unseen = [...this.#writings].filter((writing) => {
			const written = [...writing.branches.values()];
			return written.length && !written.some((branch) => branches.includes(branch));
		});
		this.#stop(unseen);
	}

	/**
	 * Adds a text with the cells of another before `index` and then `character`, and has the model continue it.
	 * Without a character ("") the server draws a new seed.
	 * @param {Branch} branch @param {number} index @param {string} character
	 */
	fork(branch, index, character) {
		const { tree } = this.#options;
		const cells = [...branch.doc.cells.slice(0, index), ...typed(character)];
		const other = tree.add(cells, branch, index);
		tree.activate(other);
		other.editor.root.focus();
		other.editor.setCaret(other.doc.length);
		return this.write(other, character ? { num_samples: 1 } : { num_samples: 1, seed: null });
	}

	/** The server begins to answer, or goes on after a loss. @param {Writing} writing @param {Branch} branch */
	#begin(writing, branch) {
		if (writing.branches.size === 0) this.#assignBranches(writing, branch);
		this.#options.onState(writing.recorded ? "playing" : "writing");
	}

	/** A request has another place in the server's queue, 0 for none. @param {Writing} writing @param {number} place */
	#moveTo(writing, place) {
		if (writing.place === place) return;
		writing.place = place;
		const places = [...this.#writings].map((one) => one.place);
		if (places.every((one) => one > 0)) this.#options.onState("queued", { place: Math.min(...places) });
		else this.#options.onState("writing");
	}

	/**
	 * Gives each sample a text: the first continues `branch`, the others stand beside it.
	 * @param {Writing} writing @param {Branch} branch
	 */
	#assignBranches({ request, branches }, branch) {
		const { tree } = this.#options;
		const cells = [...branch.doc.cells];
		const [first, ...others] = request.runs;
		const parent = branch.parent ? { name: branch.parent } : null;
		const beside = others.map(() => tree.add(cells.slice(), parent, branch.at));
		branches.set(first, branch);
		others.forEach((run, i) => branches.set(run, beside[i]));
		if (beside.length) tree.setSideBySide(true);
	}

	/**
	 * Hands cells on to be shown, and draws again those that were shown before they were marked.
	 * @param {Writing} writing @param {Run} run @param {WrittenCell[]} cells @param {number} marked
	 */
	#append(writing, run, cells, marked) {
		writing.first ??= (performance.now() - writing.started) / 1000;
		this.#moveTo(writing, 0);
		const { doc, editor } = /** @type {Branch} */ (writing.branches.get(run));
		this.#smooth.push(editor, cells, run);
		// an edit would have stopped the writing: the run is still where it began
		if (marked < run.cells.length - cells.length && this.#options.showsMarks())
			editor.lines.redraw(run.request.start + marked, doc.length);
	}

	/** Ends some of what is being written; the state is another one once nothing is. @param {Writing[]} writings @param {State} state */
	#end(writings, state) {
		const { figures, playing } = this; // of the writing that ends
		for (const writing of writings) this.#writings.delete(writing);
		if (this.writing) return;
		if (playing) {
			this.#options.onState("idle");
			return;
		}
		this.#options.onState(state, figures);
	}
}
