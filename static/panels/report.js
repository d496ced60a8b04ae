// The panel that reports on a text: what is copied, what is invented, its structure and its quality; each figure beside
// the same figure of real text that the model never read.

import { make } from "../ui/dom.js";
import { has, number, percent, t } from "../ui/i18n.js";
import { messageOf, Retry } from "../ui/retry.js";
import { reportOn } from "./answers.js";

const SHARES = ["copied_20", "copied_50", "invented_words", "invented_speakers", "distinct_2", "looped"];
const FIGURES = [
	"copied_20",
	"copied_50",
	"longest_copy",
	"invented_words",
	"invented_speakers",
	"distinct_2",
	"looped",
	"line_length",
	"ngram_bits",
	"model_bits",
];
const FACTS = { invented_words: "fact_invented", copied_20: "fact_copied", model_bits: "fact_bits" };
const MAX_WORDS = 20; // invented words that are listed
const MAX_COPIES = 3; // copied passages, the longest
const MIN_COPY = 20; // characters: more than real text has by chance
/** @type {Record<string, string>} */
const VERDICTS = { above: " ▲", below: " ▼" };

export class ReportPanel {
	#panel;
	#card;
	#active;
	/** What the report is about. @type {{ branch: Branch, text: string, length: number } | null} */
	#subject = null;
	#stale = make("p", "stale", t("report_stale"));
	#notice = make("p", "hint");
	#retry = new Retry(this.#notice);

	/**
	 * `active()` is the text that the button reports on.
	 * @param {HTMLElement} panel @param {HTMLButtonElement} button @param {{ card: ModelCard, active: () => Branch }} options
	 */
	constructor(panel, button, { card, active }) {
		this.#panel = panel;
		this.#card = card;
		this.#active = active;
		button.addEventListener("click", () => this.#request(active()));
		button.disabled = false; // before, a click would be lost
	}

	/**
	 * Shows a report of a text, as it is now or was when the report was requested.
	 * @param {Report} report @param {Branch} branch
	 */
	show({ characters, sentences, figures, copies, words, held_out }, branch, text = branch.doc.text) {
		this.#retry.stop();
		this.#subject = { branch, text, length: Array.from(text).length };
		const about = make("p", "hint", t("report_about", { characters }));
		const list = make("ul");
		for (const one of Object.values(sentences)) list.append(make("li", "", sentence(one)));
		const details = make("details");
		details.append(make("summary", "", t("details")), makeTable(figures));
		if (held_out) details.append(make("p", "hint", t("report_real", { characters: held_out.characters })));
		const parts = [this.#stale, about, makeFacts(figures)];
		if (words.invented.length) {
			parts.push(make("p", "found", t("report_invented", { words: listWords(words.invented) })));
		}
		if (copies.runs.length) {
			const reported = Array.from(text).slice(-characters); // all of the text, or what the model wrote at its end
			parts.push(make("p", "found", describeCopies(reported, copies.runs)));
		}
		this.#panel.replaceChildren(...parts, list, details);
		this.update();
	}

	/** Shows whether the text is still the one that the report is about. */
	update() {
		if (!this.#subject) return;
		const { branch, text, length } = this.#subject;
		const { doc } = branch;
		// The lengths first: this is called for each piece that the model writes, and texts may be long.
		this.#stale.hidden = this.#active() === branch && doc.length === length && doc.text === text;
	}

	/** @param {Branch} branch */
	async #request(branch) {
		const { text } = branch.doc;
		this.#subject = null;
		this.#panel.replaceChildren(this.#notice);
		try {
			/** @type {Report | null} */
			const report = await this.#retry.run((signal) => reportOn(text, this.#card, signal));
			if (report) this.show(report, branch, text);
		} catch (error) {
			this.#notice.textContent = messageOf(error);
		}
	}
}

/** The three figures that say most, each with what real text has. @param {Report["figures"]} figures */
function makeFacts(figures) {
	const list = make("dl", "facts");
	for (const [name, label] of Object.entries(FACTS)) {
		const { value = null, held_out = null } = figures[name] ?? {};
		if (value === null) continue;
		const fact = list.appendChild(make("div"));
		const real = held_out ? t("fact_real", { value: format(name, held_out.mean) }) : "";
		const term = fact.appendChild(make("dt", "", t(label)));
		if (real) term.append(make("span", "real", real));
		fact.append(make("dd", "", format(name, value)));
	}
	return list;
}

/** @param {Report["figures"]} figures */
function makeTable(figures) {
	const table = make("table");
	const head = table.createTHead().insertRow();
	for (const name of ["figure", "this_text", "real_text"]) {
		head.appendChild(make("th", "", t(name))).scope = "col";
	}
	const body = table.createTBody();
	for (const name of FIGURES) {
		const { value = null, held_out = null, verdict = null } = figures[name] ?? {};
		if (value === null) continue;
		const row = body.insertRow();
		row.appendChild(make("th", "", t(`figure_${name}`))).scope = "row";
		row.insertCell().textContent = format(name, value) + (VERDICTS[verdict ?? ""] ?? "");
		row.insertCell().textContent = held_out ? format(name, held_out.mean) : "";
	}
	return table;
}

/** @param {string} name @param {number} value */
function format(name, value) {
	return SHARES.includes(name) ? percent(value) : number(value, name.endsWith("bits") ? 2 : 0);
}

/**
 * One sentence of the server's verdict, in the reader's language if there is a translation.
 * @param {ReportSentence} sentence
 */
function sentence({ key, values, english }) {
	const name = `report_${key.replace(".", "_")}`;
	if (!has(name)) return english;
	/** @type {Record<string, TextValue>} */
	const shown = {};
	for (const [part, value] of Object.entries(values)) {
		const isShare = part === "share" || part === "mean";
		shown[part] = isShare ? percent(value) : { value, digits: value < 10 ? 2 : 0 };
	}
	return t(values.invented === 0 && has(`${name}_known`) ? `${name}_known` : name, shown);
}

/**
 * The longest passages that are copied; of those that real text has by chance, the longest one.
 * @param {string[]} characters @param {Report["copies"]["runs"]} runs
 */
function describeCopies(characters, runs) {
	const longest = runs.toSorted((a, b) => b.end - b.start - (a.end - a.start)).slice(0, MAX_COPIES);
	const copied = longest.filter(({ start, end }) => end - start >= MIN_COPY);
	const shown = copied.length ? copied : longest.slice(0, 1);
	const passages = shown.map(({ start, end }) => characters.slice(start, end).join("").trim());
	const quoted = passages.map((passage) => t("quoted", { text: passage.replace(/\n+/g, " / ") })).join(", ");
	return t(copied.length ? "report_copied" : "report_copied_little", { passages: quoted, length: MIN_COPY });
}

/** @param {InventedWord[]} words */
function listWords(words) {
	const different = [...new Set(words.map(({ word }) => word))];
	return different.slice(0, MAX_WORDS).join(", ") + (different.length > MAX_WORDS ? " …" : "");
}
