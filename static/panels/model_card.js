// The model card: what is served here, how it was trained, and how good it is beside simpler models.

import { make, makeTerm } from "../ui/dom.js";
import { loss as lossOf, number, t } from "../ui/i18n.js";

const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 300;
const HEIGHT = 160;
const LEFT = 34; // margins for the labels
const BOTTOM = 22;
const MARGIN = 8; // on the other sides

/** Fills the panel with the facts of /info. @param {HTMLElement} panel @param {ModelCard} card */
export function drawCard(panel, card) {
	const { dataset, val_loss, baselines, trained } = card;
	/** @type {[string | Node, string][]} */
	const facts = [
		[t("card_checkpoint"), card.checkpoint],
		[termOf("parameters"), number(card.parameters)],
		[t("card_shape"), t("card_shape_value", { layers: card.n_layer, heads: card.n_head, width: card.n_embd })],
		[termOf("context"), t("card_context_value", { count: card.block_size })],
		[termOf("vocabulary"), t("card_vocabulary_value", { count: card.vocabulary_size })],
	];
	if (dataset) {
		const value = t("card_dataset_value", { name: dataset.name, count: dataset.characters });
		facts.push([t("card_dataset"), value]);
	}
	if (val_loss !== null) {
		const value = t("card_loss_value", { nats: lossOf(val_loss), bits: lossOf(val_loss / Math.LN2) });
		facts.push([termOf("loss"), value]);
	}
	if (trained) facts.push([t("card_trained"), date(trained)]);
	facts.push([t("card_device"), `${card.device}, ${card.numerics}`]);
	const list = make("dl");
	for (const [name, value] of facts) {
		const term = make("dt");
		term.append(name);
		list.append(term, make("dd", "", value));
	}
	panel.replaceChildren(list);
	if (baselines && val_loss !== null) panel.append(drawBaselines(baselines, val_loss));
	if (card.curve?.length > 1) panel.append(drawCurve(card.curve));
}

/** @param {string} name */
function termOf(name) {
	return makeTerm(t(`card_${name}`), t(`term_${name}`));
}

/** @param {string} text */
function date(text) {
	return new Date(text).toLocaleDateString(document.documentElement.lang, { dateStyle: "long" });
}

/**
 * Validation losses as bars, the model's last.
 * @param {Record<string, number>} baselines @param {number} valLoss
 */
function drawBaselines(baselines, valLoss) {
	const figure = make("figure");
	const list = figure.appendChild(make("ul", "baselines"));
	const highest = Math.max(valLoss, ...Object.values(baselines));
	const addBar = (/** @type {string} */ name, /** @type {number} */ loss, className = "") => {
		const item = list.appendChild(make("li", className));
		item.append(make("span", "", name));
		item.appendChild(make("i")).style.width = `${(45 * loss) / highest}%`;
		item.append(` ${number(loss, 2)}`);
	};
	const others = Object.entries(baselines).sort(([, a], [, b]) => b - a);
	for (const [name, loss] of others) addBar(name === "uniform" ? t("uniform") : name, loss);
	addBar(t("this_model"), valLoss, "own");
	figure.append(make("figcaption", "", t("baselines_caption")));
	return figure;
}

/**
 * The losses over the steps of training, as SVG; with a mark at one step if given.
 * @param {CurvePoint[]} curve @param {number | null} mark
 */
export function drawCurve(curve, mark = null) {
	const figure = make("figure");
	const svg = figure.appendChild(makeSvg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img" }));
	const last = curve[curve.length - 1];
	const losses = curve.flatMap(({ train, val }) => [train, val]).filter((loss) => loss !== null);
	const low = Math.min(...losses);
	const high = Math.max(...losses);
	const right = WIDTH - MARGIN;
	const base = HEIGHT - BOTTOM;
	const x = (/** @type {number} */ step) => LEFT + ((right - LEFT) * step) / last.step;
	const y = (/** @type {number} */ loss) => MARGIN + ((base - MARGIN) * (high - loss)) / (high - low || 1);
	const label = { from: lossOf(curve[0].val ?? 0), to: lossOf(last.val ?? 0), steps: last.step };
	svg.setAttribute("aria-label", t("curve_label", label));
	for (const loss of [low, (low + high) / 2, high]) {
		svg.append(makeSvg("line", { x1: LEFT, x2: right, y1: y(loss), y2: y(loss), class: "grid" }));
		svg.append(makeSvg("text", { x: LEFT - 5, y: y(loss) + 4, "text-anchor": "end" }, number(loss, 1)));
	}
	svg.append(makeSvg("text", { x: LEFT, y: HEIGHT - 5 }, "0"));
	svg.append(makeSvg("text", { x: right, y: HEIGHT - 5, "text-anchor": "end" }, t("steps", { count: last.step })));
	for (const name of /** @type {const} */ (["train", "val"])) {
		const points = curve.flatMap(({ step, [name]: loss }) => (loss === null ? [] : [`${x(step)},${y(loss)}`]));
		svg.append(makeSvg("polyline", { points: points.join(" "), class: name }));
	}
	if (mark !== null) svg.append(makeSvg("line", { x1: x(mark), x2: x(mark), y1: MARGIN, y2: base, class: "mark" }));
	figure.append(make("figcaption", "", t("curve_caption")));
	return figure;
}

/** @param {string} name @param {Record<string, string | number>} attributes */
function makeSvg(name, attributes, text = "") {
	const element = document.createElementNS(SVG, name);
	for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, String(value));
	element.textContent = text;
	return element;
}
