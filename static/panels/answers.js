// What the panels show, from the server, or from this device where there is none.

import { get, post } from "../api/sse.js";

/**
 * The report on a text: what is copied, what is invented.
 * @param {string} text @param {ModelCard} card @param {AbortSignal} signal @returns {Promise<Report>}
 */
export async function reportOn(text, card, signal) {
	if (!card.serverless) return post("/report", { text }, signal);
	const { reportHere } = await import("../engine/client.js");
	return reportHere(text, card, signal);
}

/**
 * What each snapshot of a training run writes.
 * @param {Record<string, string>} query @param {ModelCard} card @param {AbortSignal} signal
 * @returns {Promise<SnapshotAnswer>}
 */
export async function snapshotsOf(query, card, signal) {
	if (!card.serverless) return get(`/snapshots?${new URLSearchParams(query)}`, signal);
	const { snapshotsHere } = await import("../engine/snapshots.js");
	return snapshotsHere(query, card, signal);
}
