// Typing in a document: every edit goes to the document first, and the page follows it. What a browser changes by
// itself (an input method, a spelling correction) is read back. Also copying.

import { viewBottom } from "../ui/dom.js";
import { textOf, typed } from "./document.js";
import { LineView } from "./line_view.js";

const TOOLS = 60; // pixels at the top of the window that the tools may cover

export class Editor {
	#composing = false;

	/**
	 * `root` becomes the text box of `doc`.
	 * @param {HTMLElement} root @param {TextDocument} doc @param {EditorOptions} options
	 */
	constructor(root, doc, { classify, onEdit }) {
		this.root = root;
		this.doc = doc;
		this.lines = new LineView(root, doc, classify);
		this.onEdit = onEdit;
		root.setAttribute("contenteditable", "true");
		root.addEventListener("beforeinput", (event) => this.#onBeforeInput(event));
		root.addEventListener("compositionstart", () => {
			this.onEdit();
			this.#composing = true;
		});
		root.addEventListener("compositionend", () => {
			this.#composing = false;
			this.#readBack();
		});
		root.addEventListener("input", () => {
			if (!this.#composing) this.#readBack();
		});
		root.addEventListener("copy", (event) => this.#copy(event, this.selection()));
		root.addEventListener("cut", (event) => {
			if (!root.isContentEditable) return;
			this.onEdit();
			const range = this.selection();
			if (range && this.#copy(event, range)) this.#edit(range, "");
		});
		root.addEventListener("dragstart", (event) => event.preventDefault());
	}

	/** The selected cells, or null when the selection is elsewhere. @returns {Span | null} */
	selection() {
		const { rangeCount, anchorNode, anchorOffset, focusNode, focusOffset } = getSelection();
		if (!rangeCount) return null;
		const anchor = this.lines.indexOf(anchorNode, anchorOffset);
		const focus = this.lines.indexOf(focusNode, focusOffset);
		if (anchor === null || focus === null) return null;
		return { start: Math.min(anchor, focus), end: Math.max(anchor, focus) };
	}

	/** Puts the caret before a cell. @param {number} index */
	setCaret(index) {
		getSelection().collapse(...this.lines.domPosition(Math.min(index, this.doc.length)));
	}

	/**
	 * Adds what the model wrote, and keeps room for the `rest` of a word; a caret at the end stays there.
	 * @param {Cell[]} cells @param {Run} run @param {string} rest
	 */
	append(cells, run, rest = "") {
		const atEnd = this.selection()?.start === this.doc.length;
		this.doc.append(cells, run);
		this.lines.reserve(rest);
		if (atEnd) this.setCaret(this.doc.length);
	}

	undo() {
		this.onEdit();
		this.#moveCaret(this.doc.undo());
	}

	redo() {
		this.onEdit();
		this.#moveCaret(this.doc.redo());
	}

	/** @param {number | null} index */
	#moveCaret(index) {
		if (index === null) return;
		const focused = document.activeElement;
		this.setCaret(index);
		if (focused instanceof HTMLButtonElement) focused.focus(); // setting a caret moves the focus
	}

	/** @param {InputEvent} event */
	#onBeforeInput(event) {
		const { inputType } = event;
		if (event.isComposing || inputType === "insertCompositionText") return; // read back at its end
		event.preventDefault();
		const stopped = this.onEdit();
		if (inputType === "historyUndo") this.undo();
		else if (inputType === "historyRedo") this.redo();
		else if (!inputType.startsWith("format")) {
			const range = this.#targetOf(event, stopped);
			if (range) this.#edit(range, insertedBy(event), inputType === "insertText" ? "typing" : "edit");
		}
	}

	/**
	 * The cells that an input event is about to replace; those selected now if the text has `grown` since the event.
	 * @param {InputEvent} event @param {boolean} grown @returns {Span | null}
	 */
	#targetOf(event, grown) {
		const [target] = grown ? [] : event.getTargetRanges();
		const range = (target && this.#rangeOf(target)) ?? this.selection();
		if (!range) return null;
		let { start, end } = range;
		if (start === end && event.inputType.startsWith("delete")) {
			if (event.inputType.endsWith("Forward")) end = Math.min(end + 1, this.doc.length);
			else start = Math.max(start - 1, 0);
		}
		return { start, end };
	}

	/** @param {StaticRange} range @returns {Span | null} */
	#rangeOf({ startContainer, startOffset, endContainer, endOffset }) {
		const start = this.lines.indexOf(startContainer, startOffset);
		const end = this.lines.indexOf(endContainer, endOffset);
		return start === null || end === null ? null : { start, end };
	}

	/** @param {Span} range @param {string} text @param {EditKind} kind */
	#edit({ start, end }, text, kind = "edit") {
		const cells = typed(text.replace(/\r\n?/g, "\n"));
		if (start === end && cells.length === 0) return;
		this.doc.splice(start, end, cells, kind);
		this.setCaret(start + cells.length);
		this.#keepCaretInView();
	}

	/** Takes over what the browser did to the DOM. */
	#readBack() {
		const after = this.lines.domText();
		if (this.doc.text === after) return;
		const cells = typed(after);
		const old = this.doc.cells;
		const shorter = Math.min(old.length, cells.length);
		let start = 0;
		while (start < shorter && old[start].c === cells[start].c) start += 1;
		let same = 0;
		while (same < shorter - start && old.at(-1 - same)?.c === cells.at(-1 - same)?.c) same += 1;
		this.onEdit();
		this.lines.refresh(); // which finds its elements again, wherever the browser had moved them
		this.doc.splice(start, old.length - same, cells.slice(start, cells.length - same));
		this.setCaret(cells.length - same);
	}

	/** @param {ClipboardEvent} event @param {Span | null} range */
	#copy(event, range) {
		if (!range || range.start === range.end) return false;
		event.preventDefault();
		event.clipboardData?.setData("text/plain", textOf(this.doc.cells.slice(range.start, range.end)));
		return true;
	}

	#keepCaretInView() {
		const range = getSelection().getRangeAt(0);
		const box = range.startContainer instanceof Element ? range.startContainer : range;
		const { top, bottom } = box.getBoundingClientRect();
		const end = viewBottom();
		if (bottom > end - 20) scrollBy(0, bottom - end + 50);
		else if (top < TOOLS) scrollBy(0, top - TOOLS - 20);
	}
}

/** @param {InputEvent} event */
function insertedBy({ inputType, data, dataTransfer }) {
	if (inputType.startsWith("delete")) return "";
	if (inputType === "insertLineBreak" || inputType === "insertParagraph") return "\n";
	return data ?? dataTransfer?.getData("text/plain") ?? "";
}
