// One character under the glass: which one, where it is shown, and what is asked of the model about it. What is drawn
// is in candidates.js.

import { drawCandidates, drawMarks, drawTitle, paragraph } from "./candidates.js";
import { isAsWritten } from "../editor/document.js";
import { Patience } from "../ui/retry.js";
import { ask } from "../api/sse.js";
import { choice, number, spoken, t } from "../ui/i18n.js";

const GAP = 8; // pixels around it
const LOWEST = 160; // pixels
const AROUND = 4; // characters on each side that are asked for with one
const LONGEST = 4096; // characters of a run that are scored again to look at its end
const KEPT = 2048;

export class Inspector {
  #known = new WeakMap(); // cell → raw probabilities by character id
  #notice = paragraph("", "hint");
  #patience = new Patience(this.#notice);

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
    if (!cell) {
      this.close();
      return;
    }
    this.at = { branch, index, cell, pinned };
    this.#patience.stop();
    if (!cell.run) this.#known.delete(cell); // what stands before it may have been edited
    this.element.hidden = false;
    this.#notice.textContent = this.ids.has(cell.c) ? "" : t("never_read");
    this.draw();
    if (this.#known.has(cell) || !this.ids.has(cell.c)) return;
    try {
      const answered = await this.#patience.ask((signal) => this.#ask(branch, index, cell, signal));
      if (answered && this.at?.cell === cell) this.draw();
    } catch (error) {
      if (this.at?.cell === cell) this.#notice.textContent = error.problem?.detail ?? t("page_error");
    }
  }

  close() {
    this.#patience.stop();
    this.at = null;
    this.element.hidden = true;
  }

  /** Draws what is known, with the settings in force. */
  draw() {
    if (!this.at) return;
    const { branch, index, cell } = this.at;
    const raw = this.#known.get(cell);
    const parts = [drawTitle(cell, raw, this.ids), ...drawMarks(cell)];
    if (cell.run && !isAsWritten(branch.doc.cells, index)) parts.push(paragraph(t("edited_before"), "hint"));
    const onChoose = (character) => this.onChoose(branch, index, character);
    const [settings, { characters, ids }] = [this.settings(), this];
    if (raw) parts.push(...drawCandidates({ cell, raw, settings, characters, ids, onChoose }));
    else parts.push(this.#notice);
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
    return true;
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

