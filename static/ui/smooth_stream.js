// Text appears evenly, a little in each frame, however it comes from the network; nothing waits longer than DELAY.

const DELAY = 0.1; // seconds over which what has come is spread

export class SmoothStream {
	/** @type {{ editor: Editor, cells: WrittenCell[], run: Run }[]} */
	#waiting = [];
	#frame = 0;
	#last = 0;
	/** @type {(() => void)[]} */
	#onDrained = [];
	#reducedMotion = matchMedia("(prefers-reduced-motion: reduce)");

	constructor() {
		document.addEventListener("visibilitychange", () => {
			if (document.hidden) this.flush(); // a page in the background gets no frames, but its text goes on
		});
	}

	/**
	 * Appends `cells` to an editor's text, some of them at a time.
	 * @param {Editor} editor @param {WrittenCell[]} cells @param {Run} run
	 */
	push(editor, cells, run) {
		this.#waiting.push({ editor, cells, run });
		if (document.hidden || this.#reducedMotion.matches) this.flush();
		else if (!this.#frame) {
			this.#last = performance.now();
			this.#frame = requestAnimationFrame((now) => this.#tick(now));
		}
	}

	/** Shows all that waits, now. */
	flush() {
		cancelAnimationFrame(this.#frame);
		this.#frame = 0;
		for (const { editor, cells, run } of this.#waiting.splice(0)) editor.append(cells, run);
		for (const resolve of this.#onDrained.splice(0)) resolve();
	}

	/** Resolves when nothing waits any more. @returns {Promise<void>} */
	drained() {
		if (!this.#waiting.length) return Promise.resolve();
		return new Promise((resolve) => this.#onDrained.push(resolve));
	}

	/** @param {number} now */
	#tick(now) {
		this.#frame = 0;
		const seconds = Math.max(0.004, (now - this.#last) / 1000);
		this.#last = now;
		const total = this.#waiting.reduce((sum, { cells }) => sum + cells.length, 0);
		let room = Math.max(1, Math.ceil((total * seconds) / DELAY));
		while (room > 0 && this.#waiting.length) {
			const first = this.#waiting[0];
			first.editor.append(first.cells.slice(0, room), first.run);
			room -= first.cells.length;
			if (room >= 0) this.#waiting.shift();
			else first.cells = first.cells.slice(room); // what is left is -room cells
		}
		if (this.#waiting.length) this.#frame = requestAnimationFrame((time) => this.#tick(time));
		else this.flush();
	}
}
