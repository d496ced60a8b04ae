// How sure the model was of a character, as one of six steps that colour and underline show; and the legend.

import { make } from "../ui/dom.js";
import { number, percent, t } from "../ui/i18n.js";

/** The scales of what was looked up in what the model read: a text of this device is when it ends, or not at all. */
export const LOOKED_UP = new Set(["copied", "invented"]);

/** @type {Record<string, Scale>} */
const SCALES = {
	probability: {
		valueOf: ({ prob }) => -prob,
		bounds: [-0.9, -0.5, -0.2, -0.05, -0.01],
		label: (bound) => `> ${percent(-bound)}`,
		last: () => t("below"),
	},
	rank: { valueOf: ({ rank }) => rank, bounds: [1, 2, 3, 5, 10], label: atMost, last: () => more(10) },
	surprise: {
		valueOf: ({ prob }) => -Math.log2(prob),
		bounds: [0.25, 1, 2, 4, 7],
		label: (bound) => `≤ ${number(bound, 2)}`,
		last: () => `> ${t("bits", { count: 7 })}`,
	},
	copied: {
		valueOf: ({ run, at }) => run.copied[at] ?? 0,
		bounds: [9, 19, 29, 49, 99],
		label: atMost,
		last: () => more(99),
	},
	invented: {
		valueOf: ({ run, at }) => (run.invented[at] == null ? 0 : 5),
		bounds: [0, 1, 2, 3, 4],
		label: null,
		last: () => "",
	},
};

/** @param {number} bound */
function atMost(bound) {
	return `≤ ${number(bound)}`;
}

/** @param {number} bound */
function more(bound) {
	return `> ${number(bound)}`;
}

/**
 * The step of a cell, from 0 (expected) to 5 (a surprise), by the scale named `mode`.
 * @param {WrittenCell} cell @param {string} mode
 */
function stepOf(cell, mode) {
	const { valueOf, bounds } = SCALES[mode];
	const value = valueOf(cell);
	const found = bounds.findIndex((bound) => value <= bound);
	return found === -1 ? bounds.length : found;
}

/** Whether the model wrote a cell and nobody looked it up. @param {Cell} cell */
export function isNotLookedUp({ run, at }) {
	return run !== undefined && at >= run.lookedUp;
}

/**
 * A function from a cell to its class names.
 * @param {string} mode @param {Vocabulary} vocabulary @returns {Classify}
 */
export function classifier(mode, vocabulary) {
	return (cell) => {
		if (!cell.run) return vocabulary.has(cell.c) ? "typed" : "typed unknown";
		if (mode === "off") return "written";
		if (LOOKED_UP.has(mode) && isNotLookedUp(cell)) return "written not-looked-up";
		return `written tint${stepOf(cell, mode)}`;
	};
}

/**
 * Shows the steps of the scale named `mode` in `list`, side by side as one gradient; and how a text looks that nobody
 * looked up, where the scale is of that.
 * @param {HTMLElement} list @param {string} mode
 */
export function drawLegend(list, mode) {
	const scale = SCALES[mode];
	const steps = scale?.label ? [...scale.bounds.map(scale.label), scale.last()] : [];
	/** @type {[number, string][]} */
	const invented = [
		[0, t("real_word")],
		[5, t("invented_word")],
	];
	const labels = mode === "invented" ? invented : [...steps.entries()];
	const items = labels.map(([step, label]) => make("li", `tint${step}`, label));
	if (LOOKED_UP.has(mode)) {
		const last = make("li", "not-looked-up", t("not_looked_up"));
		last.hidden = true; // until there is such text
		items.push(last);
	}
	list.replaceChildren(...items);
	list.hidden = items.length === 0;
}
