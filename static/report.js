// The panel that reads a text over: what is copied, what is invented, how it is built, and whether it is any good; each
// figure beside the same figure of real text that the model never read.

import { ask } from "./sse.js";
import { number, percent, t } from "./texts.js";

const SHARES = ["copied_20", "copied_50", "invented_words", "invented_speakers", "distinct_2", "looped"];
const FIGURES = ["copied_20", "copied_50", "longest_copy", "invented_words", "invented_speakers"];
const MORE = ["distinct_2", "looped", "line_length", "ngram_bits", "model_bits"];

export class ReportPanel {
  /** `text()` is what the button looks at. */
  constructor(panel, button, { text }) {
    this.panel = panel;
    button.addEventListener("click", () => this.#look(text()));
  }

  /** Shows a report (app/report.py). */
  show({ characters, sentences, figures, words, held_out }) {
    const said = document.createElement("ul");
    for (const { key, values } of Object.values(sentences)) {
      said.appendChild(document.createElement("li")).textContent = t(`report_${key.replace(".", "_")}`, shown(values));
    }
    const parts = [paragraph(t("report_about", { characters: number(characters) })), said];
    if (words.invented.length) parts.push(paragraph(t("report_invented", { words: list(words.invented) })));
    parts.push(this.#table(figures));
    if (held_out) parts.push(paragraph(t("report_real", { characters: number(held_out.characters) })));
    this.panel.replaceChildren(...parts);
  }

  async #look(text) {
    this.panel.replaceChildren(paragraph(t("asking")));
    try {
      this.show(await ask("/report", { text }));
    } catch (error) {
      this.panel.replaceChildren(paragraph(error.problem?.detail ?? t("lost")));
    }
  }

  #table(figures) {
    const table = document.createElement("table");
    const head = table.createTHead().insertRow();
    for (const name of ["figure", "this_text", "real_text"]) {
      const cell = head.appendChild(document.createElement("th"));
      cell.scope = "col";
      cell.textContent = t(name);
    }
    const body = table.createTBody();
    for (const name of [...FIGURES, ...MORE].filter((one) => figures[one]?.value != null)) {
      const { value, held_out, verdict } = figures[name];
      const row = body.insertRow();
      const header = row.appendChild(document.createElement("th"));
      header.scope = "row";
      header.textContent = t(`figure_${name}`);
      row.insertCell().textContent = `${format(name, value)}${{ above: " ▲", below: " ▼" }[verdict] ?? ""}`;
      row.insertCell().textContent = held_out ? format(name, held_out.mean) : "";
    }
    return table;
  }
}

function format(name, value) {
  return SHARES.includes(name) ? percent(value) : number(value, name.endsWith("bits") ? 2 : 0);
}

function shown(values) {
  const write = (name, value) => (["share", "mean"].includes(name) ? percent(value) : number(value, value < 10 ? 2 : 0));
  return Object.fromEntries(Object.entries(values).map(([name, value]) => [name, write(name, value)]));
}

function list(words) {
  const different = [...new Set(words.map(({ word }) => word))];
  return different.slice(0, 20).join(", ") + (different.length > 20 ? " …" : "");
}

function paragraph(text) {
  const element = document.createElement("p");
  element.className = "hint";
  element.textContent = text;
  return element;
}
