// The panel that reads a text over: what is copied, what is invented, how it is built, and whether it is any good; each
// figure beside the same figure of real text that the model never read.

import { ask } from "../api/sse.js";
import { Patience } from "../ui/retry.js";
import { has, number, percent, t } from "../ui/i18n.js";

const SHARES = ["copied_20", "copied_50", "invented_words", "invented_speakers", "distinct_2", "looped"];
const FIGURES = ["copied_20", "copied_50", "longest_copy", "invented_words", "invented_speakers"];
const MORE = ["distinct_2", "looped", "line_length", "ngram_bits", "model_bits"];

export class ReportPanel {
  #of = null; // {branch, text} that the report is about
  #stale = paragraph(t("report_stale"), "stale");
  #notice = paragraph("");
  #patience = new Patience(this.#notice);

  /** `active()` is the text that the button looks at. */
  constructor(panel, button, { active }) {
    Object.assign(this, { panel, active });
    button.addEventListener("click", () => this.#look(active()));
    button.disabled = false; // a click before would be lost
  }

  /** Shows a report (app/api/report.py) of a text, as it is now or was when it was asked for. */
  show({ characters, sentences, figures, words, held_out }, branch, text = branch.doc.text) {
    this.#patience.stop();
    this.#of = { branch, text };
    const said = document.createElement("ul");
    for (const one of Object.values(sentences)) {
      said.appendChild(document.createElement("li")).textContent = sentence(one);
    }
    const parts = [this.#stale, paragraph(t("report_about", { characters })), said];
    if (words.invented.length) parts.push(paragraph(t("report_invented", { words: list(words.invented) })));
    parts.push(this.#table(figures));
    if (held_out) parts.push(paragraph(t("report_real", { characters: held_out.characters })));
    this.panel.replaceChildren(...parts);
    this.update();
  }

  /** Says so when the text is no longer the one that the report is about. */
  update() {
    if (!this.#of) return;
    const { branch, text } = this.#of;
    this.#stale.hidden = this.active() === branch && branch.doc.text === text;
  }

  async #look(branch) {
    const { text } = branch.doc;
    this.#of = null;
    this.panel.replaceChildren(this.#notice);
    try {
      const report = await this.#patience.ask((signal) => ask("/report", { text }, signal));
      if (report) this.show(report, branch, text);
    } catch (error) {
      this.#notice.textContent = error.problem?.detail ?? t("page_error");
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

/** One sentence of the server's verdict, in the reader's language if there is a translation. */
function sentence({ key, values, english }) {
  const name = `report_${key.replace(".", "_")}`;
  return has(name) ? t(name, shown(values)) : english;
}

function shown(values) {
  const digits = (value) => (value < 10 ? 2 : 0);
  const write = (name, value) =>
    ["share", "mean"].includes(name) ? percent(value) : { value, digits: digits(value) };
  return Object.fromEntries(Object.entries(values).map(([name, value]) => [name, write(name, value)]));
}

function list(words) {
  const different = [...new Set(words.map(({ word }) => word))];
  return different.slice(0, 20).join(", ") + (different.length > 20 ? " …" : "");
}

function paragraph(text, name = "hint") {
  const element = document.createElement("p");
  element.className = name;
  element.textContent = text;
  return element;
}
