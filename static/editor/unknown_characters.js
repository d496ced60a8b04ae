// Characters that the model has never seen: found while someone types, with what to write instead, as the server would
// say it (model/vocabulary.py).

import { textOf, typed } from "./document.js";

const MARKS = /[\p{M}\u1160-\u11ff]/gu; // and the vowels and finals of Hangul
const MARK = new RegExp(MARKS.source, "u");
const MOST_MARKS = 30; // after one character

export class Unknown {
  constructor(card) {
    this.replacements = card.replacements;
    this.known = new Set(card.vocabulary);
    this.first = Array.from(card.vocabulary)[0];
  }

  has(character) {
    return this.known.has(character);
  }

  /** Each different unknown character of some cells, with the combining marks after it, and its replacement. */
  find(cells) {
    const found = new Map();
    for (const text of split(cells).map(textOf)) {
      if (!this.#canWrite(text) && !found.has(text)) found.set(text, this.replacement(text));
    }
    return found;
  }

  /** The cells, with replacements in the place of those that are unknown. */
  replace(cells) {
    return split(cells).flatMap((some) => {
      const text = textOf(some);
      return this.#canWrite(text) ? some : typed(this.replacement(text));
    });
  }

  /** The nearest text that the model can read. */
  replacement(character) {
    const forms = ["NFC", "NFD", "NFKC", "NFKD"].map((form) => character.normalize(form));
    const plain = forms.at(-1).replace(MARKS, "");
    const swapped = [...forms, plain].map(swapCase);
    const candidates = [this.replacements[character], ...forms, plain, ...swapped, "?", " "];
    return candidates.find((text) => text && this.#canWrite(text)) ?? this.first;
  }

  #canWrite(text) {
    return Array.from(text).every((c) => this.known.has(c));
  }
}

/** Cells in groups: a character and the combining marks that follow it. */
function split(cells) {
  const groups = [];
  for (const cell of cells) {
    const last = groups.at(-1);
    if (last && last.length <= MOST_MARKS && MARK.test(cell.c)) last.push(cell);
    else groups.push([cell]);
  }
  return groups;
}

function swapCase(text) {
  return Array.from(text, (c) => (c === c.toLowerCase() ? c.toUpperCase() : c.toLowerCase())).join("");
}
