// What the inspector shows of a character: bars of what the model thinks and of what is drawn from, and the scores that
// decided.

import { gumbelNoise } from "../engine/noise.js";
import { make, makeButton, makeTerm } from "../ui/dom.js";
import { glyph, number, percent, spoken, t } from "../ui/i18n.js";
import { choice } from "./rank.js";
import { applySettings, draw } from "./sampling.js";

const MAX_DIGITS = 12; // of a score: what a double still holds
const ROWS = 5; // candidates that are shown
const ROWS_EXPANDED = 15;
const PURE_LUCK = 0.02; // a probability below which it is nothing else
const NEARLY_ZERO = 1e-9; // for temperature 0, which scores cannot be divided by

/**
 * The character, how likely it was, and who wrote it.
 * @param {Cell} cell @param {number[] | undefined} raw @param {Map<string, number>} ids
 */
export function drawTitle(cell, raw, ids) {
	const title = make("p", "title");
	title.append(make("b", "", glyph(cell.c)));
	const prob = probabilityOf(cell, raw, ids);
	if (prob === undefined) return title;
	const rank = cell.rank ?? 1 + (raw ?? []).filter((p) => p > prob).length;
	const bits = { value: -Math.log2(prob), digits: 1 };
	const words = t("title", { percent: percent(prob), choice: choice(rank) });
	const surprise = makeTerm(t("surprise", { bits }), t("term_bits"));
	title.append(` ${words}`, surprise, cell.run ? "" : ` · ${t("typed")}`);
	return title;
}

/**
 * Why the character stands there, in a sentence: what stood before it, what was expected, and how much luck it took.
 * @param {Cell} cell @param {number[] | undefined} raw @param {Map<string, number>} ids @param {string} before
 */
export function drawReason(cell, raw, ids, before) {
	const prob = probabilityOf(cell, raw, ids);
	if (prob === undefined) return [];
	const values = { before, c: glyph(cell.c), percent: percent(prob) };
	if (!raw) return [make("p", "reason", t("why_pending", values))];
	const highest = Math.max(...raw);
	const best = [...ids].find(([, id]) => raw[id] === highest)?.[0] ?? "";
	const expected = { ...values, best: glyph(best), best_percent: percent(highest) };
	if (!cell.run) return [make("p", "reason", t("why_typed", expected))];
	if (best === cell.c) return [make("p", "reason", t("why_first", values))];
	let luck = "luck_close";
	if (prob < PURE_LUCK) luck = "luck_pure";
	else if (prob < highest / 2) luck = "luck_some";
	return [make("p", "reason", t("why_other", { ...expected, luck: t(luck) }))];
}

/** @param {Cell} cell @param {number[] | undefined} raw @param {Map<string, number>} ids */
function probabilityOf({ c, prob }, raw, ids) {
	return prob ?? raw?.[ids.get(c) ?? -1];
}

/** The candidates, each as a row that can be chosen, and the scores. @param {CandidatesOptions} options */
export function drawCandidates({ cell, raw, settings, characters, ids, expanded, rolling, onExpand, onChoose }) {
	const { run } = cell;
	const noise = run ? gumbelNoise(run.seed, run.sample, cell.at, raw.length) : null;
	const { scores, final } = applySettings(raw, { ...settings, temperature: settings.temperature || NEARLY_ZERO });
	const own = ids.get(cell.c) ?? -1;
	const best = noise ? draw(raw, settings, noise) : -1;
	const order = raw.map((_, id) => id).sort((a, b) => raw[b] - raw[a] || a - b);
	const shown = order.slice(0, expanded ? ROWS_EXPANDED : ROWS);
	for (const id of [own, best]) if (id >= 0 && !shown.includes(id)) shown.push(id);
	const decided = noise && settings.temperature > 0 ? roundScores(scores, noise, shown, best) : null;
	const list = make("ul");
	list.setAttribute("aria-label", t("candidates"));
	for (const id of shown) {
		const row = drawRow({
			id,
			c: characters[id],
			raw: raw[id],
			final: final[id],
			parts: decided?.of(id) ?? null,
			chosen: id === own,
			wins: id === best,
			rolling,
			onChoose,
		});
		list.append(row);
	}
	const expand = makeButton("quiet expand", t(expanded ? "fewer_rows" : "more_rows"), onExpand);
	expand.setAttribute("aria-expanded", String(expanded));
	/** @type {HTMLElement[]} */
	const elements = [drawHeadings(decided !== null), list, expand];
	if (decided) elements.push(make("p", "hint", t("dice")));
	const equal = noise !== null && raw.filter((p) => p === raw[best]).length > 1;
	if (decided ? decided.tie : equal) elements.push(make("p", "hint", t("tie")));
	if (run && best !== own) {
		const key = sameSettings(run.parameters, settings) ? "near" : "flip";
		elements.push(make("p", "flip", t(key, { c: glyph(characters[best]) })));
	}
	elements.push(makeButton("quiet", t("from_here"), () => onChoose("")));
	return elements;
}

/** What the columns of the rows are. @param {boolean} scored */
function drawHeadings(scored) {
	const row = make("p", "headings");
	row.setAttribute("aria-hidden", "true"); // each row says it in words
	for (const name of ["letter", "raw", "final", ...(scored ? ["dice"] : [])]) {
		row.append(make("span", `column-${name}`, t(`column_${name}`)));
	}
	return row;
}

/**
 * The scores of the candidates `shown`: log-probability, noise and their sum, rounded to the fewest digits with which
 * `best` has visibly more than all others; a tie if there is no such number of digits.
 * @param {number[]} scores @param {ArrayLike<number>} noise @param {number[]} shown @param {number} best @returns {Scores}
 */
export function roundScores(scores, noise, shown, best) {
	const highest = Math.max(...scores);
	const rivals = shown.filter((id) => id !== best && scores[id] > -Infinity);
	/** @type {(id: number, digits: number) => ScoreParts} */
	const rounded = (id, digits) => {
		const unit = 10 ** digits;
		const opinion = Math.round(unit * (scores[id] - highest)); // in whole units, so that what is shown adds up
		const gumbel = Math.round(unit * noise[id]);
		return { digits, opinion: opinion / unit, noise: gumbel / unit, sum: (opinion + gumbel) / unit };
	};
	/** @type {(id: number) => ScoreParts} */
	const exact = (id) => {
		const opinion = scores[id] - highest;
		return { digits: 1, opinion, noise: noise[id], sum: opinion + noise[id] };
	};
	for (let digits = 1; digits <= MAX_DIGITS; digits++) {
		const { sum } = rounded(best, digits);
		if (rivals.every((id) => rounded(id, digits).sum < sum)) return { tie: false, of: (id) => rounded(id, digits) };
	}
	return { tie: true, of: exact };
}

/** A row: the character, bars, its probabilities and its score. @param {CandidateRow} row */
function drawRow({ id, c, raw, final, parts, chosen, wins, rolling, onChoose }) {
	const row = make("li");
	const button = row.appendChild(makeButton("candidate", "", () => onChoose(c)));
	button.dataset.id = String(id);
	const cut = final === 0;
	button.classList.toggle("cut", cut);
	button.classList.toggle("chosen", chosen);
	button.classList.toggle("wins", wins);
	const drawnFrom = cut ? t("cut") : percent(final);
	button.append(
		make("span", "glyph", glyph(c)),
		drawBars(raw, final),
		make("span", "percent", percent(raw)),
		make("span", "percent", drawnFrom),
	);
	let words = t("candidate", { c: spoken(c), raw: percent(raw), final: drawnFrom });
	if (parts) {
		const { sum, digits } = parts;
		const score = button.appendChild(make("span", "luck", cut ? "" : number(sum, digits, digits)));
		score.append(" ");
		words += `, ${cut ? t("cut") : addition(parts)}`;
	}
	if (wins) {
		button.append(make("span", rolling ? "mark rolling" : "mark", "⚄"));
		words += `, ${t("wins")}`;
	} else button.append(make("span", "mark", chosen ? "•" : ""));
	button.setAttribute("aria-label", words);
	button.title = words;
	return row;
}

/** @param {ScoreParts} parts */
function addition({ digits, opinion, noise, sum }) {
	const fixed = (/** @type {number} */ value) => number(value, digits, digits);
	return `${fixed(opinion)} ${noise < 0 ? "−" : "+"} ${fixed(Math.abs(noise))} = ${fixed(sum)}`;
}

/** What was found of the word and the copy that a cell is in. @param {Cell} cell */
export function drawMarks({ run, at }) {
	if (!run) return [];
	const hints = [];
	const word = run.words[run.invented[at]];
	if (word) {
		const likes = [word.begins_like, word.ends_like].flatMap((like) => (like ? [like.word] : []));
		const key = likes.length ? "invented_like" : "invented_alone";
		hints.push(make("p", "hint", t(key, { word: word.word, likes: [...new Set(likes)].join(" + ") })));
	}
	if (run.copied[at]) hints.push(make("p", "hint", t("copied_run", { length: run.copied[at] })));
	return hints;
}

/** @param {Sampling} a @param {Sampling} b */
function sameSettings(a, b) {
	const sameTopK = (a.top_k ?? Infinity) === (b.top_k ?? Infinity);
	return sameTopK && a.temperature === b.temperature && a.top_p === b.top_p && a.min_p === b.min_p;
}

/**
 * Two bars, one over the other: what the model thinks, and what is drawn from.
 * @param {number} raw @param {number} final
 */
function drawBars(raw, final) {
	const box = make("span", "bars");
	for (const [name, value] of Object.entries({ raw, final })) {
		box.appendChild(make("span", name)).style.width = `${100 * value}%`;
	}
	return box;
}
