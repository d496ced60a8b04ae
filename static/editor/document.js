// One text: a row of cells, each a character and what is known of it, that can be edited, undone and redone.
// Knows nothing of the page. types.d.ts says what cells and runs are.

const MERGE_MILLISECONDS = 1000;

/** The cells of a text that someone typed. @param {string} text @returns {Cell[]} */
export function typed(text) {
	return Array.from(text.toWellFormed?.() ?? text, (c) => ({ c }));
}

/** The text of some cells. @param {readonly { c: string }[]} cells */
export function textOf(cells) {
	return cells.map(({ c }) => c).join("");
}

/**
 * Whether the character `index` of a text, if the model wrote it, still follows what it followed then.
 * @param {Cell[]} cells @param {number} index
 */
export function isAsWritten(cells, index) {
	const { run, at } = cells[index];
	if (!run) return true;
	const start = index - at;
	if (start !== run.request.start) return false;
	const unchanged = cells.slice(start, index).every((cell, i) => cell === run.cells[i]);
	return unchanged && textOf(cells.slice(0, start)) === run.prefix;
}

/**
 * What was changed in a text since the model wrote in it: `moved`, some of it follows something else now; `cut`,
 * something that followed some of it is gone.
 * @param {Cell[]} cells
 */
export function changesIn(cells) {
	let moved = false;
	let cut = false;
	cells.forEach((cell, i) => {
		const { run, at } = cell;
		if (!run) return;
		if (at > 0) moved ||= cells[i - 1] !== run.cells[at - 1];
		else moved ||= !isAsWritten(cells, i);
		cut ||= at + 1 < run.cells.length && cells[i + 1] !== run.cells[at + 1];
	});
	return { moved, cut };
}

export class TextDocument {
	/** @type {((change: Change) => void)[]} */ #listeners = [];
	/** @type {Edit[]} */ #done = [];
	/** @type {Edit[]} */ #undone = [];

	/** `windowSize` is how many characters the model sees. @param {Cell[]} cells */
	constructor(cells = [], windowSize = Infinity) {
		this.cells = cells;
		this.windowSize = windowSize;
	}

	get length() {
		return this.cells.length;
	}

	get text() {
		return textOf(this.cells);
	}

	/** The first cell that the model sees. */
	get windowStart() {
		return Math.max(0, this.length - this.windowSize);
	}

	get canUndo() {
		return this.#done.length > 0;
	}

	get canRedo() {
		return this.#undone.length > 0;
	}

	/** Calls `listener` after each change. @param {(change: Change) => void} listener */
	listen(listener) {
		this.#listeners.push(listener);
	}

	/**
	 * Puts `inserted` in the place of the cells from `start` to `end`. An insertion at the end of the last edit becomes
	 * part of it if both are of the same `kind`: the same run, or a word being typed.
	 * @param {number} start @param {number} end @param {Cell[]} inserted @param {EditKind} kind
	 */
	splice(start, end, inserted, kind = "edit") {
		const removed = this.cells.slice(start, end);
		const last = this.#done.at(-1);
		const time = performance.now();
		const merges =
			last?.kind === kind &&
			kind !== "edit" &&
			removed.length === 0 &&
			start === last.start + last.inserted.length &&
			(kind !== "typing" || time - last.time < MERGE_MILLISECONDS);
		if (merges) {
			for (const cell of inserted) last.inserted.push(cell);
			last.time = time;
		} else {
			this.#done.push({ start, removed, inserted: [...inserted], kind, time });
		}
		this.#undone = [];
		this.#apply({ start, end, inserted, run: typeof kind === "string" ? null : kind });
	}

	/** Adds what the model wrote. @param {Cell[]} cells @param {Run} run */
	append(cells, run) {
		this.splice(this.length, this.length, cells, run);
	}

	/** Takes the last edit back; returns where the caret belongs, or null if there is none. */
	undo() {
		const edit = this.#done.pop();
		if (!edit) return null;
		const { start, removed, inserted } = edit;
		this.#undone.push(edit);
		this.#apply({ start, end: start + inserted.length, inserted: removed, run: null });
		return start + removed.length;
	}

	/** Makes the edit that was undone last again; returns where the caret belongs, or null. */
	redo() {
		const edit = this.#undone.pop();
		if (!edit) return null;
		const { start, removed, inserted } = edit;
		this.#done.push(edit);
		this.#apply({ start, end: start + removed.length, inserted, run: null });
		return start + inserted.length;
	}

	/** @param {Change} change */
	#apply(change) {
		const { start, end, inserted } = change;
		if (start === this.length) for (const cell of inserted) this.cells.push(cell);
		else this.cells = [...this.cells.slice(0, start), ...inserted, ...this.cells.slice(end)];
		for (const listener of this.#listeners) listener(change);
	}
}
