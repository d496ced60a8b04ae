// Has the model write, one request at a time: into a text of the page (a branch) and others beside it, into a fork,
// or what a shared link describes. Knows nothing of the buttons.

import { generate, GenerationRequest, read } from "./api/generation.js";
import { textOf, typed } from "./editor/document.js";
import { SmoothStream } from "./ui/smooth_stream.js";

/** The request that wrote the last of a text's written characters, or null. @param {Branch} branch */
export function requestOf(branch) {
	return branch.doc.cells.findLast(({ run }) => run)?.run?.request ?? null;
}

const CANDIDATES = 5; // shown before each character, step by step

export class Session {
	#options;
	#smooth = new SmoothStream();
	/** @type {Writing | null} */
	#current = null;

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
		return this.#current !== null && this.#smooth.speed === "step";
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
		return this.#current !== null;
	}

	/** True from a request until the server begins to answer it. */
	get waiting() {
		return this.#current !== null && this.#current.branches.size === 0 && !this.#current.lost;
	}

	/** Whether what is being written is a recording. */
	get playing() {
		return this.#current !== null && this.#current.recorded;
	}

	/** How the request goes that is being written, or null. @returns {Figures | null} */
	get figures() {
		if (!this.#current) return null;
		const { request, started, first } = this.#current;
		const seconds = (performance.now() - started) / 1000;
		const speed = request.timing?.characters_per_second ?? request.characters / seconds;
		return { count: request.characters, speed, first, seed: request.seed };
	}

	/**
	 * Continues a text; samples beyond the first become texts beside it. Returns the request.
	 * @param {Branch} branch @param {Partial<Settings>} given Settings that override the form's.
	 */
	async write(branch, given = {}) {
		const { card, settings, here, onState } = this.#options;
		const retryBusy = this.stop(); // a server that is busy with what was stopped will soon have a free slot
		const { seed = null, ...fields } = { ...settings(), ...given };
		const request = new GenerationRequest(branch.doc.text, fields, seed);
		const writing = this.#start(request, false);
		onState("waiting");
		const onWait = (/** @type {number} */ milliseconds) => {
			writing.lost = true;
			onState("lost", { seconds: milliseconds / 1000 });
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
		const writing = {
			request,
			controller,
			leaving,
			recorded,
			branches: new Map(),
			started,
			first: null,
			lost: false,
		};
		this.#current = writing;
		return writing;
	}

	/**
	 * Shows what comes until its end, unless it is stopped before.
	 * @param {Writing} writing @param {Branch} branch @param {AsyncGenerator<GenerationEvent>} events
	 */
	async #follow(writing, branch, events) {
		try {
			for await (const event of events) {
				if (writing !== this.#current) continue;
				if (event.type === "start") this.#begin(writing, branch);
				else this.#append(writing, event.run, event.cells, event.marked);
			}
			await this.#smooth.drained();
			if (this.#current === writing) this.#end("done");
		} catch (error) {
			if (this.#current === writing) {
				this.#smooth.flush();
				this.#end("failed");
				this.#options.onProblem(error);
			}
		}
	}

	/**
	 * Stops the writing, if any, here and on the server. What has come is shown at full speed; at another one the text ends
	 * where the reader saw it end. Returns whether there was any.
	 */
	stop() {
		if (!this.#current) return false;
		const { controller, request } = this.#current;
		controller.abort();
		if (this.#smooth.speed === "full") this.#smooth.flush();
		for (const [run, count] of this.#smooth.discard()) {
			run.cells.length -= count;
			run.finish = null;
			request.receipt = null; // of a longer text
			request.reports = null;
		}
		this.#end("stopped");
		return true;
	}

	/** Goes on on this device with what the server was writing. */
	goOnHere() {
		this.#current?.leaving.abort();
	}

	/** Shows all that has come, at once. */
	showAll() {
		this.#smooth.flush();
	}

	/** Whether this text is being written. @param {Branch} branch */
	isWriting(branch) {
		return this.#current !== null && [...this.#current.branches.values()].includes(branch);
	}

	/**
	 * Stops the writing of this text, if it is being written, before someone edits it. Returns whether it was.
	 * @param {Branch} branch
	 */
	stopIn(branch) {
		if (!this.isWriting(branch)) return false;
		return this.stop();
	}

	/** Stops the writing if none of its texts is on the page any more. */
	stopUnseen() {
		const written = this.#current ? [...this.#current.branches.values()] : [];
		const { branches } = this.#options.tree;
		if (written.length && !written.some((branch) => branches.includes(branch))) this.stop();
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

	/**
	 * Writes again what a link holds, and compares. Returns whether all samples are the `same`, and if not, the first
	 * `sample` that differs and the character `at` which it does; null if it was not written to its end.
	 * @param {SharedText} link
	 */
	async replay(link) {
		const { tree } = this.#options;
		const isPageEmpty = tree.branches.length === 1 && tree.active.doc.length === 0;
		const branch = isPageEmpty ? tree.active : tree.add([]);
		branch.doc.splice(0, 0, typed(link.prefix));
		tree.activate(branch);
		const request = await this.write(branch, { ...link.parameters, seed: link.seed });
		if (!request.timing) return null;
		const { difference } = await import("./editor/share_format.js");
		const positions = link.samples.map((sample, i) => difference(textOf(request.runs[i]?.cells ?? []), sample));
		const sample = positions.findIndex((position) => position !== -1);
		return { same: sample === -1, sample, at: positions[sample], request };
	}

	/** The server begins to answer, or goes on after a loss. @param {Writing} writing @param {Branch} branch */
	#begin(writing, branch) {
		if (writing.branches.size === 0) this.#assignBranches(writing, branch);
		this.#options.onState(writing.recorded ? "playing" : "writing");
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
		const { doc, editor } = /** @type {Branch} */ (writing.branches.get(run));
		this.#smooth.push(editor, cells, run);
		// an edit would have stopped the writing: the run is still where it began
		if (marked < run.cells.length - cells.length) editor.lines.redraw(run.request.start + marked, doc.length);
	}

	/** @param {State} state */
	#end(state) {
		const { figures, playing } = this; // of the writing that ends
		this.#current = null;
		if (playing) {
			this.#options.onState("idle");
			return;
		}
		this.#options.onState(state, figures);
	}
}
