// Loads the engine, with a progress bar and the checkbox that chose it.

import { $ } from "../ui/dom.js";
import { load } from "./client.js";

/** Loads what it takes to write on this device; if that fails, the choice is taken back. @param {ModelCard} card */
export async function loadWithProgress(card) {
	const bar = $("here-progress");
	bar.hidden = false;
	try {
		await load(card, (share) => (bar.value = share));
	} catch (error) {
		$("write-here").checked = false;
		throw error;
	} finally {
		bar.hidden = true;
	}
}
