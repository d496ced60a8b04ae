// Compare: the same luck twice, with two temperatures or two beginnings, written side by side at the same time; where the
// texts part first is marked, with a sentence that says why.

import { GenerationRequest, generate } from "../api/generation.js";
import { writesHere } from "../api/score.js";
import { TextDocument, textOf, typed } from "../editor/document.js";
import { LineView } from "../editor/line_view.js";
import { make, makeButton } from "../ui/dom.js";
import { glyph, number, percent, t } from "../ui/i18n.js";
import { messageOf } from "../ui/retry.js";
import { SmoothStream } from "../ui/smooth_stream.js";

const LENGTH = 240; // characters that each side writes
const TEMPERATURES = [0.4, 1.2];
const MAX_BEGINNING = 120; // characters of the page's text that are proposed as a beginning
const CONTEXT = 12; // characters before the first difference that the sentence repeats
const MAX_SEED = Number.MAX_SAFE_INTEGER;

export class ComparePanel {
	element = make("section", "compare");
	#options;
	#smooth = new SmoothStream();
	#controller = new AbortController();
	#seed = make("input");
	#error = make("p", "error");
	#parting = make("p", "parting");
	#write;
	#keep;
	/** @type {Side[]} */
	#sides;
	/** The first character of what was written that differs, or -1. */
	#parted = -1;
	/** What is said of it. */
	#reason = "";
	#opened = false;

	/** @param {CompareOptions} options */
	constructor(options) {
		this.#options = options;
		this.#error.setAttribute("role", "alert");
		this.#error.id = "compare-error";
		this.#parting.setAttribute("role", "status");
		this.#write = makeButton("first", t("compare_write"), () => this.#start());
		this.#keep = makeButton("quiet", t("compare_keep"), () => this.#keepBoth());
		this.#keep.disabled = true;
		this.#sides = TEMPERATURES.map((temperature, i) => this.#makeSide(i, temperature));
		const pair = make("div", "pair");
		pair.append(...this.#sides.map(({ element }) => element));
		this.element.append(make("p", "rules", t("compare_rules")), this.#makeBar(), this.#error, this.#parting, pair);
	}

	#makeBar() {
		const bar = make("div", "bar");
		const label = make("label", "", t("compare_seed"));
		Object.assign(this.#seed, { id: "compare-seed", inputMode: "numeric", autocomplete: "off" });
		this.#seed.setAttribute("aria-describedby", this.#error.id);
		label.htmlFor = this.#seed.id;
		const other = makeButton("quiet", t("compare_other"), () => {
			this.#seed.value = String(Math.floor(Math.random() * 2 ** 32));
			this.#start();
		});
		bar.append(this.#write, label, this.#seed, other, this.#keep);
		return bar;
	}

	/** @param {number} index @param {number} temperature @returns {Side} */
	#makeSide(index, temperature) {
		const element = make("div", "side");
		const name = t(index ? "compare_right" : "compare_left");
		element.setAttribute("role", "group");
		element.setAttribute("aria-label", name);
		const beginning = make("textarea");
		beginning.rows = 2;
		beginning.spellcheck = false;
		const slider = make("input");
		Object.assign(slider, { type: "range", min: "0", max: "2", step: "0.05", value: String(temperature) });
		const output = make("output", "", number(temperature, 2));
		slider.addEventListener("input", () => {
			output.textContent = number(Number(slider.value), 2);
		});
		const text = make("label", "", t("compare_beginning"));
		text.append(beginning);
		const boldness = make("label", "boldness", t("compare_temperature"));
		boldness.append(slider, output);
		const root = make("div", "document");
		root.tabIndex = 0; // it scrolls
		root.setAttribute("role", "group");
		root.setAttribute("aria-label", t("compare_text", { name }));
		element.append(text, boldness, root);
		const written = { prefix: "", temperature, doc: new TextDocument(), lines: null, run: null };
		return { element, beginning, slider, root, ...written };
	}

	/** Proposes what the page's text began with, the first time. */
	open() {
		if (this.#opened) return;
		this.#opened = true;
		const { prefix, seed } = this.#options.beginning();
		this.#seed.value = String(seed);
		for (const { beginning } of this.#sides) beginning.value = endOf(prefix);
	}

	/** Ends the writing. */
	close() {
		this.#controller.abort();
		this.#smooth.discard(this.#sides.flatMap(({ run }) => run ?? []));
		if (this.#write.disabled) this.#say(this.#reason); // no longer that the model is asked
		this.#write.disabled = false;
	}

	async #start() {
		const seed = Number(this.#seed.value.trim() || NaN);
		const valid = Number.isInteger(seed) && seed >= 0 && seed <= MAX_SEED;
		this.#error.textContent = valid ? "" : t("compare_bad_seed", { high: MAX_SEED });
		this.#seed.ariaInvalid = valid ? null : "true";
		if (!valid) return;
		this.close();
		const controller = new AbortController();
		this.#controller = controller;
		this.#parted = -1;
		this.#reason = "";
		this.#say(t("asking"));
		this.#keep.disabled = true;
		this.#write.disabled = true;
		this.#smooth.speed = matchMedia("(prefers-reduced-motion: reduce)").matches ? "full" : "reading";
		try {
			await Promise.all(this.#sides.map((side) => this.#follow(side, seed, controller.signal)));
			await this.#smooth.drained();
			if (controller.signal.aborted) return;
			this.#say(this.#parted === -1 ? t("compare_same") : this.#reason);
			this.#keep.disabled = false;
		} catch (error) {
			if (controller.signal.aborted) return;
			controller.abort(); // the other side, too
			this.#say(this.#reason);
			this.#error.textContent = messageOf(error);
		}
		this.#write.disabled = false;
	}

	/** Says something once: a screen reader would read it again. @param {string} sentence */
	#say(sentence) {
		if (this.#parting.textContent !== sentence) this.#parting.textContent = sentence;
	}

	/** Has one side written. @param {Side} side @param {number} seed @param {AbortSignal} signal */
	async #follow(side, seed, signal) {
		const { card, classify, settings } = this.#options;
		const prefix = side.beginning.value;
		const temperature = Number(side.slider.value);
		Object.assign(side, { prefix, temperature, run: null }); // the fields may change meanwhile
		side.doc = new TextDocument(typed(prefix));
		side.lines = new LineView(side.root, side.doc, classify());
		/** @type {Settings} */
		const fields = {
			...settings(),
			temperature,
			max_new_tokens: LENGTH,
			num_samples: 1,
		};
		const request = new GenerationRequest(prefix, fields, seed);
		/** @type {StreamOptions["onWait"]} */
		const onWait = (_, busy) => this.#say(t(busy ? "busy_again" : "away"));
		const options = { signal, retryBusy: false, onWait, alternatives: 1, here: writesHere(card) };
		for await (const event of generate(request, card, options)) {
			if (event.type === "waiting") this.#say(t("state_queued", { place: event.place }));
			if (event.type !== "text") continue;
			side.run = event.run;
			const shown = {
				append: (/** @type {WrittenCell[]} */ cells, /** @type {Run} */ run, rest = "") =>
					this.#show(side, cells, run, rest),
			};
			this.#smooth.push(shown, event.cells, event.run);
		}
	}

	/** @param {Side} side @param {WrittenCell[]} cells @param {Run} run @param {string} rest */
	#show(side, cells, run, rest) {
		side.doc.append(cells, run);
		side.lines?.reserve(rest);
		side.root.scrollTop = side.root.scrollHeight;
		if (this.#parted === -1) this.#findParting();
	}

	/** Marks the first character that differs, once both sides show it. */
	#findParting() {
		const [left, right] = this.#sides.map(({ doc, prefix }) => doc.cells.slice(Array.from(prefix).length));
		const shorter = Math.min(left.length, right.length);
		const at = left.slice(0, shorter).findIndex(({ c }, i) => c !== right[i].c);
		if (at === -1) {
			this.#say(t("compare_so_far"));
			return;
		}
		this.#parted = at;
		for (const { lines, prefix } of this.#sides) lines?.setCursor(Array.from(prefix).length + at);
		this.#reason = this.#explain(at);
		this.#say(this.#reason);
	}

	/** Why the texts part there, in a sentence; none while a side has not come so far. @param {number} at */
	#explain(at) {
		const sides = this.#sides.flatMap(({ run, prefix, temperature }) => {
			if (!run?.cells[at]) return [];
			const before = prefix + textOf(run.cells.slice(0, at));
			const [favourite] = run.alternatives[at];
			return [{ cell: run.cells[at], before, favourite, temperature }];
		});
		const [left, right] = sides;
		if (!left || !right) return "";
		const values = {
			at: at + 1,
			left: glyph(left.cell.c),
			right: glyph(right.cell.c),
			left_before: context(left.before),
			right_before: context(right.before),
			left_percent: percent(left.cell.prob),
			right_percent: percent(right.cell.prob),
			left_best: glyph(left.favourite.char),
			right_best: glyph(right.favourite.char),
			left_highest: percent(left.favourite.prob),
			right_highest: percent(right.favourite.prob),
		};
		if (left.before !== right.before) return t("compare_beginnings", values);
		const low = left.temperature <= right.temperature ? left : right;
		const high = low === left ? right : left;
		return t("compare_temperatures", {
			at: at + 1,
			before: context(low.before),
			safe: glyph(low.cell.c),
			safe_percent: percent(low.cell.prob),
			bold: glyph(high.cell.c),
			bold_percent: percent(high.cell.prob),
			low: { value: low.temperature, digits: 2 },
			high: { value: high.temperature, digits: 2 },
		});
	}

	/** Puts both texts beside those of the page. */
	#keepBoth() {
		this.#options.onKeep(this.#sides.map(({ doc }) => doc.cells));
	}
}

/** The end of a text, from the beginning of a line. @param {string} text */
function endOf(text) {
	const end = Array.from(text).slice(-MAX_BEGINNING).join("");
	return end.length < text.length ? end.slice(end.search(/\n(?=.)/s) + 1) : end;
}

/** @param {string} before */
function context(before) {
	const characters = Array.from(before);
	const shown = characters.slice(-CONTEXT).map((c) => (c === " " ? c : glyph(c)));
	return `${characters.length > CONTEXT ? "…" : ""}${shown.join("")}`;
}
