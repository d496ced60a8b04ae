// One character under the glass: which one, where it is shown, and what is asked of the model about it. What is drawn
// is in candidates.js, which is loaded with the first character that is looked at.

import { ask } from "./sse.js";
import { choice, number, spoken, t } from "./texts.js";

const GAP = 8; // pixels around it
const LOWEST = 160; // pixels
const AROUND = 4; // characters on each side that are asked for with one
const LONGEST = 4096; // characters of a run that are scored again to look at its end
const KEPT = 2048;

export class Inspector {
  #known = new WeakMap(); // cell → raw probabilities by character id
  #asking = null;
  #view = null; // candidates.js

  /** `settings()` gives the sampling settings in force; `onChoose(branch, index, character)` forks. */
  constructor(element, { card, settings, onChoose }) {
    Object.assign(this, { element, card, settings, onChoose });
    this.characters = Array.from(card.vocabulary);
    this.ids = new Map(this.characters.map((c, id) => [c, id]));
    this.at = null; // {branch, index, cell, pinned}
    element.addEventListener("keydown", (event) => this.#onKey(event));
  }

  get open() {
    return !this.element.hidden;
  }

  /** Shows the cell `index` of a text. A pinned one stays until it is closed. */
  async show(branch, index, pinned) {
    const cell = branch.doc.cells[index];
    if (!cell || !this.ids.has(cell.c)) return this.close();
    this.at = { branch, index, cell, pinned };
    this.#asking?.abort();
    if (!cell.run) this.#known.delete(cell); // what stands before it may have been edited
    this.#view ??= await import("./candidates.js");
    if (this.at?.cell !== cell) return undefined;
    this.element.hidden = false;
    this.draw();
    if (this.#known.has(cell)) return undefined;
    this.#asking = new AbortController();
    try {
      await this.#ask(branch, index, cell, this.#asking.signal);
      if (this.at?.cell === cell) this.draw();
    } catch (error) {
      if (error.name !== "AbortError" && this.at?.cell === cell) this.#fail(error);
    }
    return undefined;
  }

  close() {
    this.#asking?.abort();
    this.at = null;
    this.element.hidden = true;
  }

  /** Draws what is known, with the settings in force. */
  draw() {
    if (!this.at || !this.#view) return;
    const { branch, index, cell } = this.at;
    const raw = this.#known.get(cell);
    const parts = [this.#view.drawTitle(cell, raw, this.ids), ...this.#view.drawMarks(cell)];
    const onChoose = (character) => this.onChoose(branch, index, character);
    const [settings, { characters, ids }] = [this.settings(), this];
    if (raw) parts.push(...this.#view.drawCandidates({ cell, raw, settings, characters, ids, onChoose }));
    else parts.push(this.#view.paragraph(t("asking"), "hint"));
    const focused = document.activeElement?.dataset?.id;
    this.element.replaceChildren(...parts);
    if (focused !== undefined) this.element.querySelector(`[data-id="${CSS.escape(focused)}"]`)?.focus();
    this.place();
  }

  focus() {
    this.element.querySelector("button.candidate")?.focus();
  }

  /** How a character is told in words: "t, 62 percent, first choice". */
  describe(cell) {
    if (!cell.run) return t("said_typed", { c: spoken(cell.c) });
    return t("said", { c: spoken(cell.c), percent: number(100 * cell.prob, cell.prob < 0.1 ? 1 : 0), choice: choice(cell.rank) });
  }

  async #ask(branch, index, cell, signal) {
    const { run } = cell;
    const { block_size, default_prompt } = this.card;
    const cells = run ? run.cells : branch.doc.cells.slice(0, index + 1);
    const at = run ? cell.at : index;
    const before = run ? Array.from(run.prefix) : [];
    const last = Math.min(cells.length - 1, run ? at + AROUND : at);
    const from = run ? (last > LONGEST ? last - KEPT : 0) : at;
    const prompt = [...before, ...cells.slice(0, from).map(({ c }) => c)].slice(-block_size).join("") || default_prompt;
    const asked = cells.slice(from, last + 1);
    const first = Math.max(0, (run ? at - AROUND : at) - from);
    const text = asked.map(({ c }) => c).join("");
    const body = { prompt, text, first, alternatives: this.characters.length };
    const { chars } = await ask("/score", body, signal);
    chars.forEach(({ alternatives }, i) => {
      const raw = new Array(this.characters.length).fill(0);
      for (const { char, prob } of alternatives) raw[this.ids.get(char)] = prob;
      this.#known.set(asked[first + i], raw);
    });
  }

  #fail(error) {
    const message = this.#view.paragraph(t(error.problem?.status === 503 ? "busy" : "lost"), "error");
    this.element.replaceChildren(this.#view.drawTitle(this.at.cell, undefined, this.ids), message);
  }

  /** Under the character or over it, where there is more room, inside the window. */
  place() {
    if (!this.at) return;
    const { branch, index } = this.at;
    const rect = branch.editor.lines.rectOf(index);
    const { style } = this.element;
    style.maxHeight = "";
    const { offsetWidth: width, offsetHeight: height } = this.element;
    const [above, below] = [rect.top - 2 * GAP, innerHeight - rect.bottom - 2 * GAP];
    const under = height <= below || below >= above;
    const room = Math.max(LOWEST, under ? below : above);
    style.maxHeight = `${room}px`;
    style.left = `${Math.max(GAP, Math.min(rect.left - 24, document.documentElement.clientWidth - width - GAP))}px`;
    const top = under ? rect.bottom + GAP : rect.top - GAP - Math.min(height, room);
    style.top = `${Math.max(GAP, Math.min(top, innerHeight - Math.min(height, room) - GAP))}px`;
  }

  #onKey(event) {
    const by = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!by) return;
    const buttons = [...this.element.querySelectorAll("button")];
    buttons[(buttons.indexOf(document.activeElement) + by + buttons.length) % buttons.length].focus();
    event.preventDefault();
  }
}

