// Writing: one request at a time, from a text on the page, into that text and those beside it. Also forks, and texts
// that a link writes again. Knows the texts and what is said of them, not the buttons.

import { textOf, typed } from "./editor/document.js";
import { Pacer } from "./ui/smooth_stream.js";
import { difference } from "./editor/share_format.js";
import { Request, write } from "./api/generation.js";

/** The request that wrote the end of a text, or null. */
export function requestOf(branch) {
  return branch.doc.cells.findLast(({ run }) => run)?.run.request ?? null;
}

export class Session {
  #pacer = new Pacer();
  #now = null; // what is being written: {request, controller, branches: Map from run to text, started, first}

  /**
   * `parameters()` are the form's. `onState(state, figures)` hears what happens: waiting, writing, lost, stopped,
   * failed, done; `onText(branch, text)` what has appeared; `onProblem(error)` why nothing more comes.
   */
  constructor({ card, tree, parameters, onState, onText, onProblem }) {
    Object.assign(this, { card, tree, parameters, onState, onText, onProblem });
  }

  get writing() {
    return this.#now !== null;
  }

  /** True from a request until the server begins to answer it. */
  get waiting() {
    return this.#now !== null && this.#now.branches.size === 0 && !this.#now.lost;
  }

  /** What was asked and how it goes: characters, their speed, seconds to the first one, seed; null before any. */
  get figures() {
    if (!this.#now) return null;
    const { request, started, first } = this.#now;
    const seconds = (performance.now() - started) / 1000;
    const speed = request.timing?.characters_per_second ?? request.characters / seconds;
    return { count: request.characters, speed, first, seed: request.seed };
  }

  /** Writes on from the end of a text; samples beyond the first become texts beside it. Returns the request. */
  async write(branch, given = {}) {
    const patient = this.stop(); // its slot on the server is free again in a moment
    const { seed = null, ...fields } = { ...this.parameters(), ...given };
    const request = new Request(branch.doc.text, fields, seed);
    const now = { request, controller: new AbortController(), branches: new Map(), started: performance.now(), first: null };
    this.#now = now;
    this.onState("waiting");
    try {
      await write(request, {
        card: this.card,
        signal: now.controller.signal,
        patient,
        onStart: () => this.#begin(now, branch),
        onCells: (run, cells) => this.#arrive(now, run, cells),
        onMarks: (run, from) => this.#remark(now, run, from),
        onWait: (milliseconds) => {
          now.lost = true;
          this.onState("lost", { seconds: milliseconds / 1000 });
        },
      });
      await this.#pacer.drained();
      if (this.#now === now) this.#end("done");
    } catch (error) {
      if (this.#now === now) {
        this.#pacer.flush();
        this.#end("failed");
        this.onProblem(error);
      }
    }
    return request;
  }

  /** Stops the writing, if any, here and on the server; what has come is shown. Returns whether there was any. */
  stop() {
    if (!this.#now) return false;
    this.#now.controller.abort();
    this.#pacer.flush();
    this.#end("stopped");
    return true;
  }

  /** Shows all that has come, at once. */
  showAll() {
    this.#pacer.flush();
  }

  /** Whether this text is being written. */
  isWriting(branch) {
    return this.#now !== null && [...this.#now.branches.values()].includes(branch);
  }

  /** Stops it if it goes on in this text, as someone is about to edit it. Returns whether it did. */
  stopIn(branch) {
    return this.isWriting(branch) && this.stop();
  }

  /** Stops it if nothing of it is on the page any more. */
  stopUnseen() {
    const written = this.#now ? [...this.#now.branches.values()] : [];
    if (written.length && !written.some((branch) => this.tree.branches.includes(branch))) this.stop();
  }

  /**
   * A new text that leaves another before a cell, with `character` in its place; the model goes on from there. With no
   * character it is the luck that has to be another.
   */
  fork(branch, index, character) {
    const cells = [...branch.doc.cells.slice(0, index), ...typed(character)];
    const other = this.tree.add(cells, branch, index);
    this.tree.activate(other);
    other.editor.root.focus();
    other.editor.setCaret(other.doc.length);
    return this.write(other, { num_samples: 1, ...(character ? {} : { seed: null }) });
  }

  /**
   * Writes again what a link holds (editor/share_format.js). Returns {same, sample, at, request}: whether all is the same, else
   * the sample and the character from which on it differs; null if it was not written to its end.
   */
  async replay(link) {
    const fresh = this.tree.branches.length === 1 && this.tree.active.doc.length === 0;
    const branch = fresh ? this.tree.active : this.tree.add([]);
    branch.doc.splice(0, 0, typed(link.prefix));
    this.tree.activate(branch);
    const request = await this.write(branch, { ...link.parameters, seed: link.seed });
    if (!request.timing) return null;
    const places = link.samples.map((sample, i) => difference(textOf(request.runs[i]?.cells ?? []), sample));
    const sample = places.findIndex((place) => place !== -1);
    return { same: sample === -1, sample, at: places[sample], request };
  }

  #begin(now, branch) {
    if (now.branches.size === 0) this.#spread(now, branch);
    this.onState("writing");
  }

  /** Gives each sample a text: the first goes on in `branch`, the others beside it. */
  #spread(now, branch) {
    const cells = [...branch.doc.cells];
    const { runs } = now.request;
    const parent = branch.parent && { name: branch.parent };
    const beside = runs.slice(1).map(() => this.tree.add(cells.slice(), parent, branch.at));
    [branch, ...beside].forEach((one, i) => now.branches.set(runs[i], one));
    if (beside.length) this.tree.setSideBySide(true);
  }

  #arrive(now, run, cells) {
    if (now !== this.#now) return;
    now.first ??= (performance.now() - now.started) / 1000;
    const branch = now.branches.get(run);
    this.#pacer.push(cells, (some) => {
      branch.editor.append(some, run);
      this.onText(branch, textOf(some));
    });
  }

  /** Draws again what new marks are on; nobody has edited the text since it began to be written. */
  #remark(now, run, from) {
    if (now !== this.#now) return;
    const { doc, editor } = now.branches.get(run);
    editor.lines.redraw(run.request.start + from, doc.length);
  }

  #end(state) {
    const figures = this.figures;
    this.#now = null;
    this.onState(state, figures);
  }
}
