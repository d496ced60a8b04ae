// One text: a row of cells, each a character and what is known of it, that can be edited, undone and redone.
// Knows nothing of the page.
//
// A cell is {c} when someone typed it, and {c, run, at, prob, rank, entropy} when the model wrote it: the `at`th
// character of a run. Cells never change, so forks and histories share them. A run is what one sample of one request
// wrote: {request, prefix, seed, sample, parameters, cells, finish}, and what was found in it (api/generation.js): {copied, words,
// invented}.

const MERGE_MILLISECONDS = 1000;

/** The cells of a text that someone typed. */
export function typed(text) {
  return Array.from(text.toWellFormed?.() ?? text, (c) => ({ c }));
}

/** The text of some cells. */
export function textOf(cells) {
  return cells.map(({ c }) => c).join("");
}

/** Whether the character `index` of a text, which the model wrote, still stands after what it was written after. */
export function isAsWritten(cells, index) {
  const { run, at } = cells[index];
  const start = index - at;
  const wrote = cells.slice(Math.max(0, start), index).every((cell, i) => cell === run.cells[i]);
  return start === run.request.start && wrote && textOf(cells.slice(0, start)) === run.prefix;
}

/**
 * What was changed in a text since the model wrote in it: `moved`, some of it stands after something else now; `cut`,
 * something that followed some of it is gone.
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
  #listeners = [];
  #done = []; // edits, {start, removed, inserted, kind, time}
  #undone = [];

  constructor(cells = []) {
    this.cells = cells;
  }

  get length() {
    return this.cells.length;
  }

  get text() {
    return textOf(this.cells);
  }

  get canUndo() {
    return this.#done.length > 0;
  }

  get canRedo() {
    return this.#undone.length > 0;
  }

  /** Calls `listener({start, end, inserted})` after each change. */
  listen(listener) {
    this.#listeners.push(listener);
  }

  /**
   * Puts `inserted` in the place of the cells from `start` to `end`. What follows an edit of the same `kind` at its
   * end belongs to it: a run of the model's, or a word being typed.
   */
  splice(start, end, inserted, kind = "edit") {
    const removed = this.cells.slice(start, end);
    const last = this.#done.at(-1);
    const now = performance.now();
    const goesOn =
      last?.kind === kind &&
      kind !== "edit" &&
      removed.length === 0 &&
      start === last.start + last.inserted.length &&
      (kind !== "typing" || now - last.time < MERGE_MILLISECONDS);
    if (goesOn) {
      for (const cell of inserted) last.inserted.push(cell);
      last.time = now;
    } else {
      this.#done.push({ start, removed, inserted: [...inserted], kind, time: now });
    }
    this.#undone = [];
    this.#apply(start, end, inserted);
  }

  /** Adds what the model wrote. */
  append(cells, run) {
    this.splice(this.length, this.length, cells, run);
  }

  /** Takes the last edit back; returns where the caret belongs, or null if there is none. */
  undo() {
    const edit = this.#done.pop();
    if (!edit) return null;
    this.#undone.push(edit);
    this.#apply(edit.start, edit.start + edit.inserted.length, edit.removed);
    return edit.start + edit.removed.length;
  }

  /** Makes the last edit taken back again; returns where the caret belongs, or null. */
  redo() {
    const edit = this.#undone.pop();
    if (!edit) return null;
    this.#done.push(edit);
    this.#apply(edit.start, edit.start + edit.removed.length, edit.inserted);
    return edit.start + edit.inserted.length;
  }

  #apply(start, end, inserted) {
    if (start === this.length) for (const cell of inserted) this.cells.push(cell);
    else this.cells = [...this.cells.slice(0, start), ...inserted, ...this.cells.slice(end)];
    for (const listener of this.#listeners) listener({ start, end, inserted });
  }
}
