// Draws a document as lines, one element each, and converts between its cells and positions in the DOM.
// Only what changed is drawn again. Knows nothing of typing.
//
// Lines stand together in blocks. Each block is a layer of its own to the browser (see style.css), which keeps what it
// has painted: of a long text, each frame would otherwise paint every line again. A layer for each line costs more.

const SPEAKER = /^[^\s:][^:\n]{0,40}:$/; // a whole line, such as "ROMEO:"
const MAX_SPEAKER = 42; // characters that it matches at most
const BLOCK_LINES = 32; // in a block that grows at its end; edits may double that

export class LineView {
	/** The first cell of each line. @type {number[]} */
	#starts = [];
	/** The element of each line. @type {HTMLElement[]} */
	#lines = [];
	#classify;
	/** The line at which a mark in the margin says that the model sees from here. @type {HTMLElement | null} */
	#marked = null;
	/** That line and all after it. @type {Set<HTMLElement>} */
	#seen = new Set();
	/** The line with room for the rest of a word. @type {HTMLElement | null} */
	#roomy = null;
	/** The cell that is inspected by keyboard, or -1. */
	#cursor = -1;
	/** Its element, the same one for every cell. @type {HTMLSpanElement | null} */
	#cursorSpan = null;

	/** @param {HTMLElement} root @param {TextDocument} doc @param {Classify} classify */
	constructor(root, doc, classify) {
		this.root = root;
		this.doc = doc;
		this.#classify = classify;
		doc.listen((change) => this.#update(change));
		this.refresh();
	}

	/** Draws everything again. */
	refresh() {
		this.#keepSelection([this.root], () => {
			this.#starts = [];
			this.#lines = this.#makeLines(0, this.doc.length, this.#starts);
			this.root.replaceChildren(inBlocks(this.#lines));
			this.#markSpeakers(0, this.#starts.length);
			this.#markWindow();
		});
	}

	/**
	 * Keeps room at the end for the rest of the word that is being written there, which would otherwise jump to the next
	 * line while it grows.
	 * @param {string} rest
	 */
	reserve(rest) {
		delete this.#roomy?.dataset.rest;
		this.#roomy = rest ? this.lastLine : null;
		if (this.#roomy) this.#roomy.dataset.rest = rest;
	}

	/** The element of the last line. */
	get lastLine() {
		return this.#lines[this.#lines.length - 1];
	}

	/** Draws the lines of some cells again. @param {number} from @param {number} to */
	redraw(from, to) {
		if (from < to) this.#redraw(this.#lineOf(from), this.#lineOf(to));
	}

	/**
	 * Gives one cell (-1: none) an element of its own, for the keyboard's focus, and returns the element.
	 * @param {number} index
	 */
	setCursor(index) {
		const before = this.#cursor;
		this.#cursor = index;
		this.#cursorSpan ??= document.createElement("span");
		for (const cell of [before, index]) {
			if (cell >= 0 && cell < this.doc.length) this.#redraw(this.#lineOf(cell), this.#lineOf(cell));
		}
		return this.#cursorSpan;
	}

	/**
	 * The first and last cell (a line break, or the document's end) of the line that a cell is in.
	 * @param {number} index
	 */
	lineAround(index) {
		const line = this.#lineOf(index);
		return { start: this.#starts[line], end: this.#endOf(line) };
	}

	/** The cell at a position in the DOM, or null outside. @param {Node | null} node @param {number} offset */
	indexOf(node, offset) {
		if (!node || !this.root.contains(node)) return null;
		const element = (node instanceof Element ? node : node.parentElement)?.closest(".line");
		if (!element) return this.#indexBetween(node, offset);
		const line = this.#lines.indexOf(/** @type {HTMLElement} */ (element));
		if (line < 0) return null;
		const before = document.createRange();
		before.setStart(element, 0);
		before.setEnd(node, offset);
		return this.#advance(this.#starts[line], before.toString().length, this.#endOf(line));
	}

	/** The cell at a position that is in no line, but among blocks or lines. @param {Node} node @param {number} offset */
	#indexBetween(node, offset) {
		const next = node.childNodes[offset] ?? (node === this.root ? null : node.nextSibling);
		const number = this.#lines.findIndex((line) => next?.contains(line));
		return number < 0 ? this.doc.length : this.#starts[number];
	}

	/** The position in the DOM before a cell. @param {number} index @returns {[Node, number]} */
	domPosition(index) {
		const line = this.#lineOf(index);
		let units = 0; // of UTF-16, which the DOM counts
		for (let i = this.#starts[line]; i < index; i++) units += this.doc.cells[i].c.length;
		const walker = document.createTreeWalker(this.#lines[line], NodeFilter.SHOW_TEXT);
		for (let node = walker.nextNode(); node; node = walker.nextNode()) {
			const { length } = /** @type {Text} */ (node);
			if (units <= length) return [node, units];
			units -= length;
		}
		return [this.#lines[line], 0];
	}

	/** Where a cell is on the screen. @param {number} index */
	rectOf(index) {
		const line = this.#lineOf(index);
		if (index >= this.#endOf(line)) return this.#breakRect(this.rangeOf(index, index), line);
		const range = this.rangeOf(index);
		const rects = range.getClientRects();
		return rects[rects.length - 1] ?? range.getBoundingClientRect();
	}

	/** The place of one cell, or of those before `end`, in the DOM. @param {number} index */
	rangeOf(index, end = index + 1) {
		const range = document.createRange();
		range.setStart(...this.domPosition(index));
		range.setEnd(...this.domPosition(end));
		return range;
	}

	/** The text as the DOM has it, which a browser may have changed by itself. */
	domText() {
		const lines = [];
		for (const block of this.root.childNodes) {
			if (block instanceof Element && block.matches(".block")) lines.push(...block.childNodes);
			else lines.push(block);
		}
		return lines.map((line) => line.textContent).join("\n");
	}

	/** A line break's place, as wide as a common character. @param {Range} range @param {number} line */
	#breakRect(range, line) {
		const rect = range.getBoundingClientRect();
		const box = rect.height ? rect : this.#lines[line].getBoundingClientRect();
		return new DOMRect(box.left, box.top, 0.6 * box.height, box.height);
	}

	/** @param {Change} change */
	#update({ start, end, inserted }) {
		if (this.#cursor >= this.doc.length) this.#cursor = -1;
		this.reserve("");
		const atEnd = start === end && start + inserted.length === this.doc.length;
		if (atEnd && this.#starts.length) this.#append(start);
		else this.#replace(start, end, inserted.length);
		this.#markWindow();
	}

	/**
	 * Marks the lines that the model sees, if text before them has left its window. Each has the class itself: for a rule
	 * about all lines after the first, a browser would look at every one again at each key.
	 */
	#markWindow() {
		const start = this.doc.windowStart;
		const first = start > 0 ? this.#lineOf(start) : this.#starts.length;
		/** @type {Set<HTMLElement>} */
		const seen = new Set();
		for (let i = first; i < this.#starts.length; i++) seen.add(this.#lines[i]);
		for (const line of this.#seen) {
			if (!seen.has(line)) line.classList.remove("seen");
		}
		for (const line of seen) line.classList.add("seen");
		this.#seen = seen;
		const [marked = null] = seen;
		if (marked === this.#marked) return;
		delete this.#marked?.dataset.seen;
		if (marked) marked.dataset.seen = this.root.dataset.window ?? "";
		this.#marked = marked;
	}

	/** Continues the last line with the cells from `start` on. @param {number} start */
	#append(start) {
		const number = this.#starts.length - 1;
		const line = this.lastLine;
		let end = start;
		while (end < this.doc.length && this.doc.cells[end].c !== "\n") end += 1;
		if (this.#starts[number] === start) line.replaceChildren(); // it was empty: see `#fill`
		this.#fill(line, start, end);
		if (end < this.doc.length) {
			const made = this.#makeLines(end + 1, this.doc.length, this.#starts);
			this.#lines.push(...made);
			const last = blockOf(line);
			const room = Math.max(0, BLOCK_LINES - last.childElementCount);
			last.append(joined(made.slice(0, room)));
			this.root.append(inBlocks(made.slice(room)));
		}
		this.#markSpeakers(number, this.#starts.length);
	}

	/**
	 * Draws the lines anew in which `count` cells have taken the place of those from `start` to `end`.
	 * @param {number} start @param {number} end @param {number} count
	 */
	#replace(start, end, count) {
		const first = this.#lineOf(start);
		const after = this.#lineOf(end) + 1; // of the lines before the change
		const shift = count - (end - start);
		const stop = after < this.#starts.length ? this.#starts[after] + shift - 1 : this.doc.length;
		/** @type {number[]} */
		const starts = [];
		const made = this.#makeLines(this.#starts[first] ?? 0, stop, starts);
		const old = this.#lines.slice(first, after);
		const block = blockOf(old[0]);
		old[0].before(joined(made));
		for (const line of old) {
			const emptied = blockOf(line);
			line.remove();
			if (!emptied.hasChildNodes()) emptied.remove();
		}
		this.#lines = [...this.#lines.slice(0, first), ...made, ...this.#lines.slice(after)];
		if (block.childElementCount > 2 * BLOCK_LINES) block.replaceWith(inBlocks([...block.children]));
		const rest = this.#starts.slice(after).map((index) => index + shift);
		this.#starts = [...this.#starts.slice(0, first), ...starts, ...rest];
		this.#markSpeakers(first, first + starts.length + 2);
	}

	/** Draws the lines `from` to `to` again. @param {number} from @param {number} to */
	#redraw(from, to) {
		const elements = this.#lines.slice(from, to + 1);
		this.#keepSelection(elements, () => {
			elements.forEach((element, i) => {
				element.replaceChildren();
				this.#fill(element, this.#starts[from + i], this.#endOf(from + i));
			});
		});
	}

	/**
	 * Does `action`, which draws `elements` again, and restores what was selected there and the keyboard's focus.
	 * @param {HTMLElement[]} elements @param {() => void} action
	 */
	#keepSelection(elements, action) {
		const { anchorNode, anchorOffset, focusNode, focusOffset } = getSelection();
		const touched = elements.some((element) => element.contains(anchorNode) || element.contains(focusNode));
		const known = touched && this.#starts.length > 0;
		const anchor = known ? this.indexOf(anchorNode, anchorOffset) : null;
		const focus = known ? this.indexOf(focusNode, focusOffset) : null;
		const cursor = document.activeElement === this.#cursorSpan ? this.#cursorSpan : null;
		action();
		if (cursor) cursor.focus({ preventScroll: true });
		else if (anchor !== null && focus !== null) {
			getSelection().setBaseAndExtent(...this.domPosition(anchor), ...this.domPosition(focus));
		}
	}

	/**
	 * Elements of the lines that the cells from `start` to `stop` make; adds their first cells to `starts`.
	 * @param {number} start @param {number} stop @param {number[]} starts
	 */
	#makeLines(start, stop, starts) {
		const made = [];
		let from = start;
		for (let at = start; at <= stop; at++) {
			if (at < stop && this.doc.cells[at].c !== "\n") continue;
			const line = document.createElement("div");
			this.#fill(line, from, at);
			made.push(line);
			starts.push(from);
			from = at + 1;
		}
		return made;
	}

	/**
	 * Adds the cells from `start` to `end` to a line: a span for each stretch with the same classes.
	 * @param {HTMLElement} line @param {number} start @param {number} end
	 */
	#fill(line, start, end) {
		line.classList.add("line");
		const lineBreak = this.doc.cells.at(end); // undefined at the end of the document
		line.dataset.break = lineBreak?.run ? this.#classes(lineBreak, end) : "";
		const last = line.lastElementChild;
		let span = last instanceof HTMLSpanElement ? last : null;
		let text = "";
		for (let i = start; i < end; i++) {
			const classes = this.#classes(this.doc.cells[i], i);
			if (span?.className !== classes) {
				if (text) span?.append(text);
				text = "";
				span = i === this.#cursor && this.#cursorSpan ? this.#cursorSpan : document.createElement("span");
				span.className = classes;
				span.textContent = "";
				line.append(span);
			}
			text += this.doc.cells[i].c;
		}
		if (text) span?.append(text);
		if (lineBreak && end === this.#cursor) this.#drawBreak(line, end);
		if (!line.hasChildNodes()) line.append(document.createElement("br")); // an empty line keeps its height
	}

	/**
	 * Adds an empty element for the keyboard's focus at a line break, which has no width.
	 * @param {HTMLElement} line @param {number} index
	 */
	#drawBreak(line, index) {
		const span = /** @type {HTMLSpanElement} */ (this.#cursorSpan);
		span.className = `${this.#classes(this.doc.cells[index], index)} break`;
		span.textContent = "";
		line.append(span);
	}

	/** @param {Cell} cell @param {number} index */
	#classes(cell, index) {
		const cursor = index === this.#cursor ? " cursor" : "";
		return this.#classify(cell) + cursor;
	}

	/**
	 * Marks, among the lines from `from` to `to`, paragraphs' first lines that name a speaker, and blank lines.
	 * @param {number} from @param {number} to
	 */
	#markSpeakers(from, to) {
		for (let line = from; line < Math.min(to, this.#starts.length); line++) {
			const beginsParagraph = line === 0 || this.#isEmpty(line - 1);
			const element = this.#lines[line];
			const isShort = this.#endOf(line) - this.#starts[line] <= MAX_SPEAKER;
			element.classList.toggle("speaker", beginsParagraph && isShort && SPEAKER.test(element.textContent));
			element.classList.toggle("blank", this.#isEmpty(line) && line + 1 < this.#starts.length);
		}
	}

	/** @param {number} line */
	#isEmpty(line) {
		return this.#endOf(line) === this.#starts[line];
	}

	/** The number of the line that a cell is in. @param {number} index */
	#lineOf(index) {
		let low = 0;
		let high = this.#starts.length - 1;
		while (low < high) {
			const middle = (low + high + 1) >> 1;
			if (this.#starts[middle] <= index) low = middle;
			else high = middle - 1;
		}
		return low;
	}

	/** The cell after a line's last, which is its line break if it has one. @param {number} line */
	#endOf(line) {
		return line + 1 < this.#starts.length ? this.#starts[line + 1] - 1 : this.doc.length;
	}

	/**
	 * The cell `units` UTF-16 units after `index`, at most `end`.
	 * @param {number} index @param {number} units @param {number} end
	 */
	#advance(index, units, end) {
		let at = index;
		let left = units;
		while (at < end && left > 0) {
			left -= this.doc.cells[at].c.length;
			at += 1;
		}
		return at;
	}
}

/** All elements, for one `append`: of arguments, a call takes 100,000 or so at most. @param {Element[]} elements */
function joined(elements) {
	const fragment = document.createDocumentFragment();
	for (const element of elements) fragment.appendChild(element);
	return fragment;
}

/** Blocks with these lines. @param {Element[]} lines */
function inBlocks(lines) {
	const blocks = [];
	for (let start = 0; start < lines.length; start += BLOCK_LINES) {
		const block = document.createElement("div");
		block.className = "block";
		block.append(joined(lines.slice(start, start + BLOCK_LINES)));
		blocks.push(block);
	}
	return joined(blocks);
}

/** The block that a line stands in. @param {HTMLElement} line */
function blockOf(line) {
	return /** @type {HTMLElement} */ (line.parentElement);
}
