// The character that the lens shows: marked in its text, kept in view, and with the temperature to try beside it.

import { $, find, viewBottom } from "../ui/dom.js";
import { number } from "../ui/i18n.js";

const GAP = 20; // pixels that stay free below it

/** Marks a character in its text, which is not drawn again for it, or none. @param {Inspected | null} at */
export function mark(at) {
	if (!CSS.highlights) return;
	if (at) CSS.highlights.set("letter", new Highlight(at.branch.editor.lines.rangeOf(at.index)));
	else CSS.highlights.delete("letter");
}

/** Scrolls so that the lens does not cover the character. @param {Inspected} at */
export function reveal({ branch, index }) {
	const over = branch.editor.lines.rectOf(index).bottom - (viewBottom() - GAP);
	if (over > 0) scrollBy({ top: over, behavior: "instant" });
}

/** The temperature stands in the lens, too, so that what it says can be tried. @param {Sampling} sampling */
export function showTemperature({ temperature }) {
	const slider = $("lens-temperature");
	slider.max = String(Math.max(2, temperature));
	slider.value = String(temperature);
	find($("what-if"), "output").textContent = number(temperature, 2);
}
