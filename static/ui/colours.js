// What the text is coloured by: the switch above it, and how the certainty of the model is measured.

import { $ } from "./dom.js";

const radios = /** @type {HTMLInputElement[]} */ ([...$("colours").querySelectorAll("input")]);
const SURE = "sure";

/** The scale in force: "probability", "rank", "surprise", "copied", "invented" or "off". */
export function colourMode() {
	const chosen = radios.find(({ checked }) => checked)?.value ?? SURE;
	return chosen === SURE ? $("measure").value : chosen;
}

/** Chooses a scale, if this page has it. @param {string} mode */
export function chooseColour(mode) {
	const isMeasure = [...$("measure").options].some(({ value }) => value === mode);
	if (isMeasure) $("measure").value = mode;
	const radio = radios.find(({ value }) => value === (isMeasure ? SURE : mode)) ?? radios[0];
	radio.checked = true;
}

/** Calls `listener` when another scale is chosen. @param {() => void} listener */
export function listenToColours(listener) {
	for (const element of [...radios, $("measure")]) element.addEventListener("change", listener);
}
