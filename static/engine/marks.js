// What is copied and what is invented in texts that were written on this device before anyone wanted to know.

import { textOf } from "../editor/document.js";
import { loadIndex, reportHere } from "./client.js";
import { mark } from "../api/generation.js";

/** Marks what is not marked yet in some texts. @param {ModelCard} card @param {Branch[]} branches */
export async function markWritten(card, branches) {
	await loadIndex(card);
	const { signal } = new AbortController();
	for (const run of new Set(branches.flatMap(({ doc }) => doc.cells.flatMap((cell) => cell.run ?? [])))) {
		if (run.copied.length > 0) continue;
		const { copies, words } = await reportHere(textOf(run.cells), card, signal, false);
		mark(run, { index: 0, copied: copies.lengths, invented: words.invented });
	}
}
