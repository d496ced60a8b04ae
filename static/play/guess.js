// Guess the next letter: the player bets, then the model shows what it expected, ten times. guess_rounds.js has the rules.

import { score } from "../api/score.js";
import { copyText } from "../ui/clipboard.js";
import { make, makeButton } from "../ui/dom.js";
import { glyph, number, percent, spoken, t } from "../ui/i18n.js";
import { messageOf, Retry } from "../ui/retry.js";
import { drawLetters } from "./bars.js";
import { ROUNDS, bitsOfBet, choosePlaces, expectationOf, folded, shareOf } from "./guess_rounds.js";

const ALTERNATIVES = 12; // that the model is asked for at each letter
const ROWS = 5; // of them that are shown
const LINES = 3; // of the text that stand before a letter
const MAX_BET = 8; // letters
/** How well a bet did, as a class and as it is copied. @type {Record<string, string>} */
const SQUARES = { hit: "🟩", near: "🟨", miss: "⬛" };
const CLOSE = 1; // bits between two scores that are called equal

export class GuessPanel {
	element = make("section", "guess");
	#options;
	#notice = make("p", "hint");
	#retry = new Retry(this.#notice);
	#passage = make("p", "passage");
	#form = make("form", "bet");
	#bet = make("input");
	#error = make("p", "error");
	#answer = make("div", "answer");
	#tally = make("p", "tally");
	/** How many different letters a bet can be on. */
	#size;
	/** The game, once the model has answered. @type {Game | null} */
	#game = null;

	/** @param {GuessOptions} options */
	constructor(options) {
		this.#options = options;
		this.#size = new Set(Array.from(options.card.vocabulary, folded)).size;
		this.#notice.setAttribute("role", "status");
		this.#answer.setAttribute("role", "status");
		this.#error.setAttribute("role", "alert");
		this.#error.id = "bet-error";
		this.#makeForm();
		const rules = make("p", "rules", t("guess_rules"));
		this.element.append(rules, this.#notice, this.#passage, this.#form, this.#error, this.#answer, this.#tally);
	}

	#makeForm() {
		const label = make("label", "", t("guess_bet"));
		label.htmlFor = "bet";
		Object.assign(this.#bet, { id: "bet", maxLength: MAX_BET, autocomplete: "off", spellcheck: false });
		this.#bet.setAttribute("autocapitalize", "off");
		this.#bet.setAttribute("aria-describedby", this.#error.id);
		const button = make("button", "first", t("guess_done"));
		this.#form.append(label, this.#bet, button);
		this.#form.addEventListener("submit", (event) => {
			event.preventDefault();
			this.#onBet();
		});
	}

	/** Begins a game, unless one is being played. */
	open() {
		if (!this.#game) this.#start();
		else this.#bet.focus();
	}

	/** Asks for nothing any more. */
	close() {
		this.#retry.stop();
	}

	async #start() {
		this.#game = null;
		this.#showForm(false);
		for (const part of [this.#passage, this.#answer]) part.replaceChildren();
		this.#tally.textContent = "";
		const characters = await this.#options.characters();
		const places = choosePlaces(characters);
		if (places.length < ROUNDS) {
			this.#notice.textContent = t("guess_no_text");
			return;
		}
		const [first] = places;
		const last = places[places.length - 1];
		const prompt = characters.slice(0, first).slice(-this.#options.card.block_size).join("");
		const text = characters.slice(first, last + 1).join("");
		const body = { prompt, text, first: 0, alternatives: ALTERNATIVES };
		try {
			const answer = await this.#retry.run((signal) => score(body, this.#options.card, signal));
			if (!answer) return;
			this.#notice.textContent = "";
			const expected = places.map((place) => expectationOf(answer.chars[place - first]));
			this.#game = { characters, places, expected, round: 0, bits: { player: 0, model: 0 }, marks: [] };
			this.#ask();
		} catch (error) {
			this.#notice.textContent = messageOf(error);
		}
	}

	/** Shows the text up to the next letter that is hidden. */
	#ask() {
		this.#showPassage(null);
		this.#answer.replaceChildren();
		this.#showForm(true);
		this.#bet.value = "";
		this.#bet.focus();
		this.#showTally();
	}

	/** @param {string | null} letter Which stands at the end, or null while it is hidden. */
	#showPassage(letter) {
		if (!this.#game) return;
		const { characters, places, round } = this.#game;
		const before = characters.slice(0, places[round]).join("");
		const lines = before.split("\n");
		const shown = lines.slice(-LINES).join("\n").replace(/^\n+/, "");
		const box = letter === null ? make("mark", "asked", "?") : make("mark", "told", glyph(letter));
		this.#passage.replaceChildren(lines.length > LINES ? `…\n${shown}` : shown, box);
	}

	/** @param {boolean} shown */
	#showForm(shown) {
		this.#form.hidden = !shown;
		this.#error.textContent = "";
	}

	#onBet() {
		if (!this.#game) return;
		const bet = this.#bet.value;
		const unknown = Array.from(bet).find((c) => !this.#knows(c));
		if (!bet || unknown !== undefined) {
			this.#error.textContent = bet ? t("guess_unknown", { c: spoken(unknown ?? "") }) : t("guess_empty");
			return;
		}
		const { characters, places, round, expected, bits, marks } = this.#game;
		const letter = characters[places[round]];
		const { likeliest, probability, bits: modelBits } = expected[round];
		const own = bitsOfBet(bet, letter, this.#size);
		bits.player += own;
		bits.model += modelBits;
		marks.push(markOf(shareOf(bet, letter)));
		this.#showForm(false);
		this.#showPassage(letter);
		const [[best, highest]] = likeliest;
		const values = {
			c: glyph(letter),
			share: percent(shareOf(bet, letter)),
			own: bitsIn(own),
			model_share: percent(probability),
			model: bitsIn(modelBits),
			best: glyph(best),
			highest: percent(highest),
		};
		const shown = likeliest.slice(0, ROWS);
		if (shown.every(([one]) => one !== folded(letter))) shown.push([folded(letter), probability]);
		const key = best === folded(letter) ? "guess_model_first" : "guess_model_other";
		const last = round === ROUNDS - 1;
		const next = makeButton("first", t(last ? "guess_result" : "guess_next"), () => this.#next());
		this.#answer.replaceChildren(
			make("p", "", `${t("guess_yours", values)} ${t(key, values)}`),
			drawLetters(shown, t("guess_expected"), folded(letter)),
			next,
		);
		next.focus();
		this.#showTally();
	}

	/** @param {string} character */
	#knows(character) {
		const { vocabulary } = this.#options.card;
		return [character, folded(character), character.toUpperCase()].some((one) => vocabulary.includes(one));
	}

	#next() {
		if (!this.#game) return;
		this.#game.round += 1;
		if (this.#game.round < ROUNDS) this.#ask();
		else this.#showResult();
	}

	#showTally() {
		if (!this.#game) return;
		const { round, bits, marks } = this.#game;
		const values = {
			round: round + 1,
			rounds: ROUNDS,
			player: bitsIn(bits.player),
			model: bitsIn(bits.model),
		};
		this.#tally.replaceChildren(t("guess_tally", values), drawMarks(marks));
	}

	#showResult() {
		if (!this.#game) return;
		const { bits, marks } = this.#game;
		const values = {
			rounds: ROUNDS,
			player: bitsIn(bits.player),
			model: bitsIn(bits.model),
			blind: { value: ROUNDS * Math.log2(this.#size), digits: 0 },
		};
		let key = "guess_equal";
		if (bits.player < bits.model - CLOSE) key = "guess_won";
		else if (bits.player > bits.model + CLOSE) key = "guess_lost";
		const said = make("p", "hint");
		const { origin, pathname } = location;
		const shared = `${t("guess_shared", values)}\n${marks.map((mark) => SQUARES[mark]).join("")}\n${origin}${pathname}`;
		const copy = makeButton("first", t("guess_copy"), async () => {
			said.textContent = t((await copyText(shared, this.element)) ? "copied" : "copy_failed");
		});
		const again = makeButton("quiet", t("guess_again"), () => this.#start());
		const buttons = make("p", "bar");
		buttons.append(copy, again);
		this.#game = null;
		this.#passage.replaceChildren();
		this.#tally.textContent = "";
		this.#answer.replaceChildren(
			make("p", "verdict", t(key, values)),
			make("p", "", t("guess_total", values)),
			drawMarks(marks),
			buttons,
			said,
		);
		copy.focus();
	}
}

/** How well a bet did. @param {number} share */
function markOf(share) {
	if (share === 1) return "hit";
	return share > 0 ? "near" : "miss";
}

/** A square for each round. @param {string[]} marks */
function drawMarks(marks) {
	const row = make("span", "marks");
	row.hidden = marks.length === 0;
	row.setAttribute("role", "img");
	row.setAttribute("aria-label", marks.map((mark) => t(`guess_${mark}`)).join(", "));
	row.append(...marks.map((mark) => make("i", mark)));
	return row;
}

/** @param {number} bits */
function bitsIn(bits) {
	return number(bits, 1, 1);
}
