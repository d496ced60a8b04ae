// Typing in a document: every edit goes to the document first, and the page follows it. What a browser changes by
// itself (an input method, a spelling correction) is read back. Also copying.

import { textOf, typed } from "./document.js";
import { Lines } from "./line_view.js";

export class Editor {
  #composing = false;

  /**
   * `root` becomes the text box of `doc`; `look` gives a cell's class names. `onEdit` is called before each edit by
   * hand, and tells whether that stopped the model, which then has written all that it had.
   */
  constructor(root, doc, { look, onEdit }) {
    this.root = root;
    this.doc = doc;
    this.lines = new Lines(root, doc, look);
    this.onEdit = onEdit;
    root.setAttribute("contenteditable", "true");
    root.addEventListener("beforeinput", (event) => this.#beforeInput(event));
    root.addEventListener("compositionstart", () => {
      this.onEdit();
      this.#composing = true;
    });
    root.addEventListener("compositionend", () => {
      this.#composing = false;
      this.#readBack();
    });
    root.addEventListener("input", () => this.#composing || this.#readBack());
    root.addEventListener("copy", (event) => this.#copy(event));
    root.addEventListener("cut", (event) => {
      if (!root.isContentEditable) return;
      this.onEdit();
      const range = this.selection();
      if (this.#copy(event)) this.#edit(range.start, range.end, "");
    });
    root.addEventListener("dragstart", (event) => event.preventDefault());
  }

  /** The selected cells, {start, end}, or null when the selection is elsewhere. */
  selection() {
    const { rangeCount, anchorNode, anchorOffset, focusNode, focusOffset } = getSelection();
    if (!rangeCount) return null;
    const ends = [this.lines.indexOf(anchorNode, anchorOffset), this.lines.indexOf(focusNode, focusOffset)];
    if (ends.includes(null)) return null;
    return { start: Math.min(...ends), end: Math.max(...ends) };
  }

  /** Puts the caret before a cell. */
  setCaret(index) {
    getSelection().collapse(...this.lines.placeOf(Math.min(index, this.doc.length)));
  }

  /** Adds what the model wrote; a caret at the end stays there. */
  append(cells, run) {
    const selected = this.selection();
    const atEnd = selected !== null && selected.start === this.doc.length;
    this.doc.append(cells, run);
    if (atEnd) this.setCaret(this.doc.length);
  }

  undo() {
    this.onEdit();
    this.#moveTo(this.doc.undo());
  }

  redo() {
    this.onEdit();
    this.#moveTo(this.doc.redo());
  }

  #moveTo(index) {
    if (index === null) return;
    const focused = document.activeElement;
    this.setCaret(index);
    if (focused.matches("button")) focused.focus(); // a caret takes the focus with it
  }

  #beforeInput(event) {
    if (event.isComposing || event.inputType === "insertCompositionText") return; // read back at its end
    event.preventDefault();
    const stopped = this.onEdit();
    const { inputType } = event;
    if (inputType === "historyUndo") this.undo();
    else if (inputType === "historyRedo") this.redo();
    else if (inputType.startsWith("format")) return;
    else {
      const range = this.#targetOf(event, stopped);
      if (range) this.#edit(range.start, range.end, insertedBy(event), inputType === "insertText" ? "typing" : "edit");
    }
  }

  /** The cells that an input event is about to replace; those selected now if the text has `grown` since the event. */
  #targetOf(event, grown) {
    const [target] = grown ? [] : event.getTargetRanges();
    const ends = target && [
      this.lines.indexOf(target.startContainer, target.startOffset),
      this.lines.indexOf(target.endContainer, target.endOffset),
    ];
    const range = !ends || ends.includes(null) ? this.selection() : { start: ends[0], end: ends[1] };
    if (!range) return null;
    let { start, end } = range;
    if (start === end && event.inputType.startsWith("delete")) {
      if (event.inputType.endsWith("Forward")) end = Math.min(end + 1, this.doc.length);
      else start = Math.max(start - 1, 0);
    }
    return { start, end };
  }

  #edit(start, end, text, kind = "edit") {
    const cells = typed(text.replace(/\r\n?/g, "\n"));
    if (start === end && cells.length === 0) return;
    this.doc.splice(start, end, cells, kind);
    this.setCaret(start + cells.length);
    this.#keepCaretInView();
  }

  /** Takes over what the browser did to the DOM. */
  #readBack() {
    const [before, after] = [this.doc.text, this.lines.domText()];
    if (before === after) return;
    const cells = typed(after);
    const old = this.doc.cells;
    let start = 0;
    while (start < Math.min(old.length, cells.length) && old[start].c === cells[start].c) start += 1;
    let same = 0;
    while (same < Math.min(old.length, cells.length) - start && old.at(-1 - same).c === cells.at(-1 - same).c) same += 1;
    this.onEdit();
    this.doc.splice(start, old.length - same, cells.slice(start, cells.length - same));
    this.lines.refresh();
    this.setCaret(cells.length - same);
  }

  #copy(event) {
    const range = this.selection();
    if (!range || range.start === range.end) return false;
    event.preventDefault();
    event.clipboardData.setData("text/plain", textOf(this.doc.cells.slice(range.start, range.end)));
    return true;
  }

  #keepCaretInView() {
    const range = getSelection().getRangeAt(0);
    const box = range.startContainer.nodeType === Node.TEXT_NODE ? range : range.startContainer;
    const { top, bottom } = box.getBoundingClientRect();
    if (bottom > innerHeight - 90) scrollBy(0, bottom - innerHeight + 120);
    else if (top < 0) scrollBy(0, top - 60);
  }
}

function insertedBy(event) {
  if (event.inputType.startsWith("delete")) return "";
  if (event.inputType === "insertLineBreak" || event.inputType === "insertParagraph") return "\n";
  return event.data ?? event.dataTransfer?.getData("text/plain") ?? "";
}
