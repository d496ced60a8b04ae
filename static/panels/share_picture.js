// The picture of a text: its coloured verse, one invented word explained, what wrote it, and the link as a QR code.
// Drawn on a canvas in the colours of the page.

import { textOf } from "../editor/document.js";
import { number, t } from "../ui/i18n.js";

export const WIDTH = 1200; // as previews of links expect it
export const HEIGHT = 630;
const MARGIN = 64;
const TEXT_WIDTH = 730;
const TOP = 168; // the first line of the verse
const LINE = 44;
const LINES = 8;
const SIZE = 31; // of the verse's letters
const CODE = 300; // the QR code with its margin
const QUIET = 4; // modules around a QR code that stay light (ISO/IEC 18004)

/**
 * Draws the picture.
 * @param {HTMLCanvasElement} canvas @param {PictureContent} content
 */
export function drawPicture(canvas, { cells, request, classify, rows, lead }) {
	canvas.width = WIDTH;
	canvas.height = HEIGHT;
	const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
	const style = getComputedStyle(document.documentElement);
	const colour = (/** @type {string} */ name) => style.getPropertyValue(`--${name}`).trim();
	const serif = colour("text");
	const sans = "system-ui, sans-serif";
	const write = (/** @type {string} */ text, /** @type {number} */ x, /** @type {number} */ y) => {
		context.fillText(text, x, y, WIDTH - MARGIN - x);
	};
	context.fillStyle = colour("paper");
	context.fillRect(0, 0, WIDTH, HEIGHT);
	context.fillStyle = colour("accent");
	context.font = `italic 52px ${serif}`;
	write("Soliloquy", MARGIN, 92);
	const titleEnd = MARGIN + context.measureText("Soliloquy").width;
	context.fillStyle = colour("soft");
	context.font = `22px ${sans}`;
	write(lead, titleEnd + 28, 90);

	context.font = `${SIZE}px ${serif}`;
	const lines = linesOf(context, cells.slice(firstOf(cells, request)));
	for (const [i, line] of lines.slice(0, LINES).entries()) {
		drawLine(context, line, TOP + i * LINE, classify, colour);
	}

	const bottom = HEIGHT - MARGIN;
	context.fillStyle = colour("ink");
	context.font = `24px ${sans}`;
	context.fillText(explanation(request, lines.slice(0, LINES).flat()), MARGIN, bottom - 22, TEXT_WIDTH);
	context.fillStyle = colour("soft");
	context.font = `18px ${sans}`;
	const { parameters, seed, checkpoint } = request;
	const values = {
		checkpoint: checkpoint ?? "",
		seed: String(seed),
		temperature: { value: parameters.temperature, digits: 2 },
	};
	context.fillText(t("picture_origin", values), MARGIN, bottom + 12, TEXT_WIDTH);

	if (!rows.length) return;
	const left = WIDTH - MARGIN - CODE;
	drawCode(context, rows, left, TOP - SIZE);
	context.fillStyle = colour("soft");
	context.font = `18px ${sans}`;
	context.textAlign = "center";
	const captions = t("picture_code").split("\n");
	for (const [i, caption] of captions.entries()) {
		context.fillText(caption, left + CODE / 2, TOP - SIZE + CODE + 30 + 24 * i, CODE);
	}
}

/** The cell with which the picture begins: that of the line which the model went on with. @param {Cell[]} cells @param {RequestRecord} request */
function firstOf(cells, { start }) {
	const before = textOf(cells.slice(0, Math.max(0, start - 1))).lastIndexOf("\n");
	return before === -1 ? 0 : Array.from(textOf(cells).slice(0, before + 1)).length;
}

/**
 * Cells in lines that fit, broken at spaces; no blank line stands at the beginning, or beside another.
 * @param {CanvasRenderingContext2D} context @param {Cell[]} cells @returns {Cell[][]}
 */
function linesOf(context, cells) {
	/** @type {Cell[][]} */
	const lines = [[]];
	for (const cell of cells) {
		const line = /** @type {Cell[]} */ (lines.at(-1));
		if (cell.c === "\n") {
			if (line.length || lines.at(-2)?.length) lines.push([]);
			continue;
		}
		line.push(cell);
		if (context.measureText(textOf(line)).width <= TEXT_WIDTH) continue;
		const space = line.findLastIndex(({ c }) => c === " ");
		lines.push(line.splice(space > 0 ? space + 1 : line.length - 1));
	}
	return lines;
}

/**
 * @param {CanvasRenderingContext2D} context @param {Cell[]} line @param {number} y
 * @param {Classify} classify @param {(name: string) => string} colour
 */
function drawLine(context, line, y, classify, colour) {
	const edges = [0, ...line.map((_, i) => context.measureText(textOf(line.slice(0, i + 1))).width)];
	for (const [i, cell] of line.entries()) {
		const [, tint = "0"] = classify(cell).match(/tint(\d)/) ?? [];
		if (tint === "0") continue;
		context.fillStyle = colour(`tint${tint}`);
		context.fillRect(MARGIN + edges[i], y - SIZE, edges[i + 1] - edges[i], LINE - 6);
	}
	for (const [i, cell] of line.entries()) {
		context.fillStyle = colour(cell.run ? "ink" : "accent");
		context.fillText(cell.c, MARGIN + edges[i], y);
	}
}

/**
 * One invented word of what is shown, with the words that it is like; or that there is none, where that is known.
 * @param {RequestRecord} request @param {Cell[]} shown
 */
function explanation({ runs, reports }, shown) {
	const words = runs.flatMap(({ words: found, cells }) =>
		found.filter(({ start }) => shown.includes(cells[start])),
	);
	const liked = words.find(({ begins_like, ends_like }) => begins_like && ends_like);
	const word = liked ?? words[0];
	if (!word) return reports ? t("picture_no_word") : "";
	const likes = [word.begins_like, word.ends_like].flatMap((like) => (like ? [like.word] : []));
	const key = likes.length ? "invented_like" : "invented_alone";
	return t(key, { word: word.word, likes: [...new Set(likes)].join(" + ") });
}

/**
 * A QR code, dark on light in every colour scheme, for cameras.
 * @param {CanvasRenderingContext2D} context @param {string[]} rows @param {number} left @param {number} top
 */
function drawCode(context, rows, left, top) {
	const module = Math.max(1, Math.floor(CODE / (rows.length + 2 * QUIET))); // whole pixels, so that edges are sharp
	const edge = Math.floor((CODE - module * rows.length) / 2);
	context.fillStyle = "#fff";
	context.fillRect(left, top, CODE, CODE);
	context.fillStyle = "#000";
	for (const [y, row] of rows.entries()) {
		for (const [x, dark] of Array.from(row).entries()) {
			if (dark === "1") context.fillRect(left + edge + x * module, top + edge + y * module, module, module);
		}
	}
}

/** The words of the picture, for those who do not see it. @param {PictureContent} content */
export function describe({ cells, request }) {
	const count = cells.length;
	return t("picture_label", {
		count,
		seed: String(request.seed),
		temperature: number(request.parameters.temperature, 2),
	});
}
