// One character under the glass: how likely it was, what else the model considered, and the dice that chose it. The
// sliders reshape the bars and throw the same dice again at once; choosing another candidate forks the text.

import { luck, reshape, winner } from "./sampling.js";
import { ask } from "./sse.js";
import { glyph, number, percent, spoken, t } from "./texts.js";

const ROWS = { true: 5, false: 10 }; // candidates shown to a finger, and to a mouse
const GAP = 8; // pixels around it
const LOWEST = 160; // pixels
const AROUND = 4; // characters on each side that are asked for with one
const LONGEST = 4096; // characters of a run that are scored again to look at its end
const KEPT = 2048;

export class Inspector {
  #known = new WeakMap(); // cell → raw probabilities by character id
  #asking = null;

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
    if (!this.open) return;
    this.#asking?.abort();
    this.at = null;
    this.element.hidden = true;
  }

  /** Draws what is known, with the settings in force. */
  draw() {
    if (!this.at) return;
    const { cell } = this.at;
    const raw = this.#known.get(cell);
    const parts = [this.#title(cell, raw), ...marksOf(cell)];
    if (raw) parts.push(...this.#candidates(cell, raw));
    else parts.push(paragraph(t("asking"), "hint"));
    const focused = document.activeElement?.dataset?.id;
    this.element.replaceChildren(...parts);
    if (focused !== undefined) this.element.querySelector(`[data-id="${CSS.escape(focused)}"]`)?.focus();
    this.#place();
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
    const { block_size } = this.card;
    const cells = run ? run.cells : branch.doc.cells.slice(0, index + 1);
    const at = run ? cell.at : index;
    const before = run ? Array.from(run.prefix) : [];
    const last = Math.min(cells.length - 1, run ? at + AROUND : at);
    const from = run ? (last > LONGEST ? last - KEPT : 0) : at;
    const prompt = [...before, ...cells.slice(0, from).map(({ c }) => c)].slice(-block_size).join("") || "\n";
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

  #title(cell, raw) {
    const title = document.createElement("p");
    title.className = "title";
    const shown = title.appendChild(document.createElement("b"));
    shown.textContent = glyph(cell.c);
    const prob = cell.prob ?? raw?.[this.ids.get(cell.c)];
    if (prob === undefined) return title;
    const rank = cell.rank ?? 1 + raw.filter((p) => p > prob).length;
    const words = t("title", { percent: percent(prob), choice: choice(rank), bits: number(-Math.log2(prob), 1) });
    title.append(` ${words}${cell.run ? "" : ` · ${t("typed")}`}`);
    return title;
  }

  #candidates(cell, raw) {
    const settings = this.settings();
    const noise = cell.run && luck(cell.run.seed, cell.run.sample, cell.at, raw.length);
    const shape = reshape(raw, { ...settings, temperature: settings.temperature || 1e-9 });
    const own = this.ids.get(cell.c);
    const best = noise ? winner(raw, settings, noise) : -1;
    const order = raw.map((_, id) => id).sort((a, b) => raw[b] - raw[a] || a - b);
    const shown = order.slice(0, ROWS[matchMedia("(pointer: coarse)").matches]);
    for (const id of [own, best]) if (id >= 0 && !shown.includes(id)) shown.push(id);
    const list = document.createElement("ul");
    list.setAttribute("aria-label", t("candidates"));
    for (const id of shown) list.append(this.#row(id, { raw, shape, noise, settings, chosen: id === own, wins: id === best }));
    const parts = [list];
    if (noise && settings.temperature > 0) parts.push(paragraph(t("dice"), "hint"));
    if (noise && best !== own) {
      parts.push(paragraph(t(sameSettings(cell.run, settings) ? "near" : "flip", { c: glyph(this.characters[best]) }), "flip"));
    }
    const on = document.createElement("button");
    on.type = "button";
    on.className = "quiet";
    on.textContent = t("from_here");
    on.addEventListener("click", () => this.onChoose(this.at.branch, this.at.index, ""));
    parts.push(on);
    return parts;
  }

  #row(id, { raw, shape, noise, settings, chosen, wins }) {
    const row = document.createElement("li");
    const button = row.appendChild(document.createElement("button"));
    const c = this.characters[id];
    button.type = "button";
    button.className = "candidate";
    button.dataset.id = String(id);
    const cut = shape.final[id] === 0;
    button.classList.toggle("cut", cut);
    button.classList.toggle("chosen", chosen);
    button.append(cellOf("glyph", glyph(c)), bars(raw[id], shape.final[id]), cellOf("percent", cut ? t("cut") : percent(shape.final[id])));
    let words = t("candidate", { c: spoken(c), raw: percent(raw[id]), final: cut ? t("cut") : percent(shape.final[id]) });
    if (noise && settings.temperature > 0) {
      const [opinion, chance] = [shape.scores[id] - Math.max(...shape.scores), noise[id]];
      const sum = cut ? t("cut") : `${number(opinion, 1)} ${chance < 0 ? "−" : "+"} ${number(Math.abs(chance), 1)} = ${number(opinion + chance, 1)}`;
      button.append(cellOf("luck", cut ? "" : sum));
      words += `, ${sum}`;
    }
    button.append(cellOf("mark", wins ? "⚄" : chosen ? "•" : ""));
    if (wins) words += `, ${t("wins")}`;
    button.setAttribute("aria-label", words);
    button.title = words;
    button.addEventListener("click", () => this.onChoose(this.at.branch, this.at.index, c));
    return row;
  }

  #fail(error) {
    this.element.replaceChildren(this.#title(this.at.cell), paragraph(error.problem?.detail ?? t("lost"), "error"));
  }

  /** Under the character or over it, where there is more room, inside the window. */
  #place() {
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

/** What was found of the word and the run that a cell is in. */
function marksOf({ run, at }) {
  const parts = [];
  const word = run?.words[run.invented[at]];
  if (word) {
    const likes = [word.begins_like, word.ends_like].filter(Boolean).map((like) => like.word);
    const key = likes.length ? "invented_like" : "invented_alone";
    parts.push(paragraph(t(key, { word: word.word, likes: [...new Set(likes)].join(" + ") }), "hint"));
  }
  if (run?.copied[at]) parts.push(paragraph(t("copied_run", { length: number(run.copied[at]) }), "hint"));
  return parts;
}

function sameSettings(run, settings) {
  return ["temperature", "top_k", "top_p", "min_p"].every((name) => {
    const [a, b] = [run.parameters[name], settings[name]];
    return a === b || (name === "top_k" && (a ?? Infinity) === (b ?? Infinity));
  });
}

function choice(rank) {
  return rank <= 3 ? t(`choice_${rank}`) : t("choice_n", { rank: number(rank) });
}

/** Two bars, one over the other: what the model thinks, and what is drawn from. */
function bars(raw, final) {
  const box = cellOf("bars", "");
  for (const [name, value] of [["raw", raw], ["final", final]]) {
    box.appendChild(cellOf(name, "")).style.width = `${100 * value}%`;
  }
  return box;
}

function cellOf(name, text) {
  const element = document.createElement("span");
  element.className = name;
  element.textContent = text;
  return element;
}

function paragraph(text, name) {
  const element = document.createElement("p");
  element.className = name;
  element.textContent = text;
  return element;
}
