// The form that verifies: what is dropped, chosen or pasted is written again on this device, and compared.

import { ProblemError } from "../api/sse.js";
import { load } from "../engine/client.js";
import { find, make } from "../ui/dom.js";
import { number, t } from "../ui/i18n.js";
import { rewrite } from "./rewrite.js";
import { readSubject, SubjectError } from "./subject.js";

const MAX_FILE = 1 << 28; // bytes, as of python -m model.verify
const MAX_PASTED = 100_000; // characters of a file that the field shows
const AROUND = 24; // characters of a passage that differs
const SHOWN_EVERY = 100; // milliseconds

export class VerifyView {
	#root;
	#card;
	#input;
	#error;
	#go;
	#stop;
	#bar;
	#result;
	#details;
	#text;
	/** A file that is too long for the field. @type {string | null} */
	#file = null;
	#controller = new AbortController();

	/** @param {HTMLElement} root that has the elements of templates/verify_form.html @param {ModelCard} card */
	constructor(root, card) {
		this.#root = root;
		this.#card = card;
		this.#input = find(root, "textarea");
		this.#error = find(root, ".error");
		this.#go = /** @type {HTMLButtonElement} */ (find(root, "[name=verify]"));
		this.#stop = /** @type {HTMLButtonElement} */ (find(root, "[name=stop]"));
		this.#bar = find(root, "progress");
		this.#result = find(root, ".outcome");
		this.#details = find(root, ".details");
		this.#text = find(root, ".rewritten");
		const chosen = /** @type {HTMLInputElement} */ (find(root, "[type=file]"));
		find(root, "form").addEventListener("submit", (event) => {
			event.preventDefault();
			this.verify(this.#file ?? this.#input.value);
		});
		this.#input.addEventListener("input", () => this.#showFile("", null));
		this.#stop.addEventListener("click", () => this.#controller.abort());
		chosen.addEventListener("change", () => {
			if (chosen.files?.[0]) this.#take(chosen.files[0]);
			chosen.value = ""; // so that the same file may be chosen again
		});
		const choose = /** @type {HTMLButtonElement} */ (find(root, "[name=choose]"));
		choose.addEventListener("click", () => chosen.click());
		const area = root.matches("dialog") ? root : document.body; // a page takes what is dropped anywhere
		area.addEventListener("dragover", (event) => {
			event.preventDefault();
			root.classList.add("over");
		});
		area.addEventListener("dragleave", () => root.classList.remove("over"));
		area.addEventListener("drop", (event) => {
			event.preventDefault();
			root.classList.remove("over");
			const file = event.dataTransfer?.files[0];
			const text = event.dataTransfer?.getData("text/plain");
			if (file) this.#take(file);
			else if (text) this.paste(text);
		});
		for (const button of [this.#go, choose]) button.disabled = false; // which nobody listened to until now
	}

	/** Puts a text into the field and verifies it. @param {string} text */
	paste(text) {
		this.#input.value = text;
		this.#showFile("", null);
		return this.verify(text);
	}

	/** @param {File} file */
	async #take(file) {
		if (file.size > MAX_FILE) {
			this.#showError(t("verify_too_large"));
			return;
		}
		const text = await file.text();
		const isShort = text.length <= MAX_PASTED;
		this.#input.value = isShort ? text : "";
		this.#showFile(file.name, isShort ? null : text);
		await this.verify(text);
	}

	/** @param {string} name @param {string | null} text */
	#showFile(name, text) {
		this.#file = text;
		find(this.#root, ".file").textContent = name;
	}

	/** Verifies a text, in the place of what is being verified. @param {string} text */
	async verify(text) {
		this.#controller.abort();
		const controller = new AbortController();
		this.#controller = controller;
		this.#clear();
		try {
			const subject = await readSubject(text, this.#card);
			this.#showBusy(true);
			await load(this.#card, (share) => this.#showProgress(share));
			const started = performance.now();
			const comparisons = await this.#write(subject, controller.signal);
			this.#show(subject, comparisons, (performance.now() - started) / 1000);
		} catch (error) {
			if (this.#controller !== controller) return; // another one has taken its place
			if (controller.signal.aborted) this.#result.textContent = t("verify_stopped");
			else this.#showError(sentenceOf(error));
		} finally {
			if (this.#controller === controller) this.#showBusy(false);
		}
	}

	/** @param {Subject} subject @param {AbortSignal} signal */
	async #write(subject, signal) {
		const { parameters } = subject;
		const expected = parameters.max_new_tokens * parameters.num_samples;
		const writing = rewrite(subject, this.#card, signal);
		let count = 0;
		let shown = 0;
		for (;;) {
			const { value, done } = await writing.next();
			if (done) return value;
			count += value.text.length;
			if (performance.now() - shown < SHOWN_EVERY) continue;
			shown = performance.now();
			this.#showProgress(count / expected);
		}
	}

	#clear() {
		this.#showError("");
		this.#result.textContent = "";
		this.#result.className = "outcome";
		this.#details.replaceChildren();
		this.#text.replaceChildren();
		this.#text.hidden = true;
	}

	/** @param {boolean} busy */
	#showBusy(busy) {
		const focused = document.activeElement;
		this.#go.hidden = busy;
		this.#stop.hidden = !busy;
		this.#bar.hidden = !busy;
		this.#bar.value = 0;
		if (busy && focused === this.#go) this.#stop.focus();
		if (!busy && focused === this.#stop) this.#go.focus();
	}

	/** @param {number} share */
	#showProgress(share) {
		this.#bar.value = Math.min(1, share);
	}

	/** @param {string} sentence */
	#showError(sentence) {
		this.#error.textContent = sentence;
		this.#input.ariaInvalid = sentence ? "true" : null;
	}

	/** @param {Subject} subject @param {Comparison[]} comparisons @param {number} seconds */
	#show(subject, comparisons, seconds) {
		const sample = Math.max(
			0,
			comparisons.findIndex(({ verdict }) => verdict !== "identical"),
		);
		const { verdict } = comparisons[sample];
		this.#result.classList.add(verdict === "identical" ? "same" : "different");
		this.#result.textContent = outcome(comparisons[sample], sample, comparisons.length);
		this.#details.replaceChildren(factsOf(subject, comparisons, seconds));
		this.#showText(subject, comparisons[sample]);
		this.#result.scrollIntoView({ block: "nearest" });
	}

	/** Shows what was written again, with the character at which it differs. @param {Subject} subject @param {Comparison} comparison */
	#showText({ parameters }, { text, at, verdict }) {
		const characters = Array.from(text);
		const same = at === -1 ? characters.length : at;
		this.#text.hidden = false;
		const heading = make("h3", "", t("verify_rewritten"));
		const body = make("p", "grown");
		body.append(make("b", "", parameters.prompt), characters.slice(0, same).join(""));
		if (verdict === "differs" || verdict === "about") {
			body.append(make("mark", "", characters.slice(same).join("")));
		}
		this.#text.replaceChildren(heading, body);
	}
}

/** The verdict in a sentence. @param {Comparison} comparison @param {number} sample @param {number} count of all */
function outcome({ verdict, text, expected = "", at }, sample, count) {
	if (verdict === "identical") return t("verify_identical");
	const place = count > 1 ? `${t("verify_sample", { sample: sample + 1 })} ` : "";
	if (verdict === "differs") {
		const there = JSON.stringify(passage(expected, at));
		const here = JSON.stringify(passage(text, at));
		return place + t("verify_differs", { at: at + 1, there, here });
	}
	if (verdict === "about") return place + t("verify_about", { at: at + 1 });
	return place + t(verdict === "digest" ? "verify_digest" : "verify_other_text");
}

/** @param {string} text @param {number} at */
function passage(text, at) {
	return Array.from(text)
		.slice(at, at + AROUND)
		.join("");
}

/** What was verified. @param {Subject} subject @param {Comparison[]} comparisons @param {number} seconds */
function factsOf({ isLink, checkpoint, numerics, seed, parameters }, comparisons, seconds) {
	const characters = comparisons.reduce((sum, { text }) => sum + Array.from(text).length, 0);
	const facts = [
		[t("verify_by"), t(isLink ? "verify_by_link" : "verify_by_receipt")],
		[t("verify_checkpoint"), `${checkpoint.slice(0, 12)}, ${numerics}`],
		[t("verify_seed"), String(seed)],
		[t("verify_temperature"), number(parameters.temperature, 2)],
		[t("verify_written"), t("verify_written_value", { characters, seconds: { value: seconds, digits: 1 } })],
	];
	const list = make("dl");
	for (const [name, value] of facts) list.append(make("dt", "", name), make("dd", "", value));
	return list;
}

/** @param {unknown} error */
function sentenceOf(error) {
	if (error instanceof SubjectError) return error.message;
	if (error instanceof ProblemError) return t("verify_failed", { reason: error.message });
	throw error;
}
