// What each snapshot of a training run writes, on this device: the answer of the server's /snapshots. They are models of
// their own, with files of their own (app/export.py).

import { ProblemError, send } from "../api/sse.js";
import { streamHere, unload } from "./client.js";

const DEFAULTS = { temperature: 0.8, top_k: 200, top_p: null, min_p: null }; // as the server's
const CHARACTERS = 300; // of each text

/**
 * Has each snapshot go on with a prompt.
 * @param {Record<string, string>} query of /snapshots @param {ModelCard} card @param {AbortSignal} signal
 * @returns {Promise<SnapshotAnswer>}
 */
export async function snapshotsHere({ prompt = "", seed, ...query }, card, signal) {
	const response = await send("/snapshots.json", { signal });
	if (!response.ok) throw new ProblemError({ status: response.status, detail: "The snapshots are missing here." });
	/** @type {SnapshotFile} */
	const { parameters, curve, snapshots } = await response.json();
	const given = Object.fromEntries(Object.entries(query).map(([name, value]) => [name, Number(value)]));
	const body = { ...DEFAULTS, ...given, max_new_tokens: CHARACTERS, prompt, seed: Number(seed) };
	const written = [];
	for (const { step, identity, default_prompt } of snapshots) {
		const snapshot = { ...card, identity, default_prompt };
		let text = "";
		try {
			for await (const { event, data } of streamHere(body, snapshot, { signal })) {
				if (event === "text") text += data.text;
			}
		} finally {
			await unload(snapshot);
		}
		written.push({ step, text });
	}
	return { parameters, curve, snapshots: written };
}
