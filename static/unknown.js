// Characters that the model has never seen: found while someone types, with what to write instead, as the server would
// say it (model/vocabulary.py).

const MARKS = /\p{M}/gu;

export class Unknown {
  constructor(card) {
    this.replacements = card.replacements;
    this.known = new Set(card.vocabulary);
    this.first = Array.from(card.vocabulary)[0];
  }

  has(character) {
    return this.known.has(character);
  }

  /** Each different unknown character of some cells, with its replacement. */
  find(cells) {
    const found = new Map();
    for (const { c } of cells) if (!this.known.has(c) && !found.has(c)) found.set(c, this.replacement(c));
    return found;
  }

  /** The nearest text that the model can read. */
  replacement(character) {
    const plain = character.normalize("NFKD").replace(MARKS, "");
    const candidates = [this.replacements[character], plain, swapCase(plain), "?", " "];
    return candidates.find((text) => text && Array.from(text).every((c) => this.known.has(c))) ?? this.first;
  }
}

function swapCase(text) {
  return Array.from(text, (c) => (c === c.toLowerCase() ? c.toUpperCase() : c.toLowerCase())).join("");
}
