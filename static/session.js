// Writing: one request at a time, from a text on the page, into that text and those beside it. Also forks, and texts
// that a link writes again. Knows the texts and how their requests go, not the buttons.

import { generate, GenerationRequest } from "./api/generation.js";
import { textOf, typed } from "./editor/document.js";
import { difference } from "./editor/share_format.js";
import { SmoothStream } from "./ui/smooth_stream.js";

/** The request that wrote the end of a text, or null. @param {Branch} branch */
export function requestOf(branch) {
	return branch.doc.cells.findLast(({ run }) => run)?.run?.request ?? null;
}

export class Session {
	#options;
	#smooth = new SmoothStream();
	/** @type {Writing | null} */
	#now = null;

	/** @param {SessionOptions} options */
	constructor(options) {
		this.#options = options;
	}

	get writing() {
		return this.#now !== null;
	}

	/** True from a request until the server begins to answer it. */
	get waiting() {
		return this.#now !== null && this.#now.branches.size === 0 && !this.#now.lost;
	}

	/** How the request goes that is being written, or null. @returns {Figures | null} */
	get figures() {
		if (!this.#now) return null;
		const { request, started, first } = this.#now;
		const seconds = (performance.now() - started) / 1000;
		const speed = request.timing?.characters_per_second ?? request.characters / seconds;
		return { count: request.characters, speed, first, seed: request.seed };
	}

	/**
	 * Continues a text; samples beyond the first become texts beside it. Returns the request.
	 * @param {Branch} branch @param {Partial<Settings>} given Settings that override the form's.
	 */
	async write(branch, given = {}) {
		const { card, settings, onState, onProblem } = this.#options;
		const retryBusy = this.stop(); // the slot that it had on the server is free again in a moment
		const { seed = null, ...fields } = { ...settings(), ...given };
		const request = new GenerationRequest(branch.doc.text, fields, seed);
		const controller = new AbortController();
		const started = performance.now();
		/** @type {Writing} */
		const now = { request, controller, branches: new Map(), started, first: null, lost: false };
		this.#now = now;
		onState("waiting");
		const { signal } = controller;
		const onWait = (/** @type {number} */ milliseconds) => {
			now.lost = true;
			onState("lost", { seconds: milliseconds / 1000 });
		};
		try {
			for await (const event of generate(request, card, { signal, retryBusy, onWait })) {
				if (event.type === "start") this.#begin(now, branch);
				else if (now === this.#now) this.#append(now, event.run, event.cells, event.marked);
			}
			await this.#smooth.drained();
			if (this.#now === now) this.#end("done");
		} catch (error) {
			if (this.#now === now) {
				this.#smooth.flush();
				this.#end("failed");
				onProblem(error);
			}
		}
		return request;
	}

	/** Stops the writing, if any, here and on the server; what has come is shown. Returns whether there was any. */
	stop() {
		if (!this.#now) return false;
		this.#now.controller.abort();
		this.#smooth.flush();
		this.#end("stopped");
		return true;
	}

	/** Shows all that has come, at once. */
	showAll() {
		this.#smooth.flush();
	}

	/** Whether this text is being written. @param {Branch} branch */
	isWriting(branch) {
		return this.#now !== null && [...this.#now.branches.values()].includes(branch);
	}

	/**
	 * Stops the writing of this text, if it is being written, before someone edits it. Returns whether it was.
	 * @param {Branch} branch
	 */
	stopIn(branch) {
		return this.isWriting(branch) && this.stop();
	}

	/** Stops the writing if none of its texts is on the page any more. */
	stopUnseen() {
		const written = this.#now ? [...this.#now.branches.values()] : [];
		const { branches } = this.#options.tree;
		if (written.length && !written.some((branch) => branches.includes(branch))) this.stop();
	}

	/**
	 * Adds a text that leaves another before a cell, with `character` in its place, and has the model continue it. With
	 * no character the seed is another one.
	 * @param {Branch} branch @param {number} index @param {string} character
	 */
	fork(branch, index, character) {
		const { tree } = this.#options;
		const cells = [...branch.doc.cells.slice(0, index), ...typed(character)];
		const other = tree.add(cells, branch, index);
		tree.activate(other);
		other.editor.root.focus();
		other.editor.setCaret(other.doc.length);
		return this.write(other, { num_samples: 1, ...(character ? {} : { seed: null }) });
	}

	/**
	 * Writes again what a link holds. Returns whether all is the same, else the sample and the character from which on
	 * it differs; null if it was not written to its end.
	 * @param {SharedText} link
	 */
	async replay(link) {
		const { tree } = this.#options;
		const fresh = tree.branches.length === 1 && tree.active.doc.length === 0;
		const branch = fresh ? tree.active : tree.add([]);
		branch.doc.splice(0, 0, typed(link.prefix));
		tree.activate(branch);
		const request = await this.write(branch, { ...link.parameters, seed: link.seed });
		if (!request.timing) return null;
		const positions = link.samples.map((sample, i) => difference(textOf(request.runs[i]?.cells ?? []), sample));
		const sample = positions.findIndex((position) => position !== -1);
		return { same: sample === -1, sample, at: positions[sample], request };
	}

	/** The server begins to answer, or goes on. @param {Writing} now @param {Branch} branch */
	#begin(now, branch) {
		if (now.branches.size === 0) this.#assignBranches(now, branch);
		this.#options.onState("writing");
	}

	/**
	 * Gives each sample a text: the first continues `branch`, the others stand beside it.
	 * @param {Writing} now @param {Branch} branch
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
	 * @param {Writing} now @param {Run} run @param {WrittenCell[]} cells @param {number} marked
	 */
	#append(now, run, cells, marked) {
		now.first ??= (performance.now() - now.started) / 1000;
		const { doc, editor } = /** @type {Branch} */ (now.branches.get(run));
		this.#smooth.push(editor, cells, run);
		// nobody has edited the text since it began to be written: the run is still where it began
		if (marked < run.cells.length - cells.length) editor.lines.redraw(run.request.start + marked, doc.length);
	}

	/** @param {State} state */
	#end(state) {
		const { figures } = this;
		this.#now = null;
		this.#options.onState(state, figures);
	}
}
