// Loads the engine, with a progress bar and the checkbox that chose it.

import { $ } from "../ui/dom.js";
import { load } from "./client.js";

const STEP = 1 / 100;

/** Loads what it takes to write on this device; if that fails, the choice is taken back. @param {ModelCard} card */
export async function loadWithProgress(card) {
	const bar = $("here-progress");
	bar.value = 0;
	bar.hidden = false;
	try {
		await load(card, (share) => {
			// thousands of parts come, and each step is drawn
			if (share === 1 || share >= bar.value + STEP) bar.value = share;
		});
	} catch (error) {
		$("write-here").checked = false;
		throw error;
	} finally {
		bar.hidden = true;
	}
}
