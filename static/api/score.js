// Whether texts are written by the server or on this device; scores, reports and snapshots' texts from either.

import { $ } from "../ui/dom.js";
import { get, post } from "./sse.js";

/** Whether texts are written on this device. @param {ModelCard} card */
export function writesHere(card) {
	return card.serverless || $("write-here").checked;
}

/**
 * How likely the model finds the characters of a text. A `quiet` request is refused where the server wants a key and has
 * been given none: the reader is not asked for one.
 * @param {ScoreBody} body @param {ModelCard} card @param {AbortSignal} signal @param {boolean} quiet
 * @returns {Promise<{ chars: Character[] }>}
 */
export async function score(body, card, signal, quiet = false) {
	if (!writesHere(card)) return post("/score", body, signal, quiet);
	const { scoreHere } = await import("../engine/client.js");
	return scoreHere(body, card, signal);
}

/**
 * The report on a text: what is copied, what is invented.
 * @param {string} text @param {ModelCard} card @param {AbortSignal} signal @returns {Promise<Report>}
 */
export async function report(text, card, signal) {
	if (!card.serverless) return post("/report", { text }, signal);
	const { reportHere } = await import("../engine/client.js");
	return reportHere(text, card, signal);
}

/**
 * What each snapshot of a training run writes.
 * @param {Record<string, string>} query @param {ModelCard} card @param {AbortSignal} signal
 * @returns {Promise<SnapshotAnswer>}
 */
export async function snapshots(query, card, signal) {
	if (!card.serverless) return get(`/snapshots?${new URLSearchParams(query)}`, signal);
	const { snapshotsHere } = await import("../engine/snapshots.js");
	return snapshotsHere(query, card, signal);
}
