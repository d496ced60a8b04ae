// Whether texts are written and scored by the server or on this device, and scores from either.

import { $ } from "../ui/dom.js";
import { post } from "./sse.js";

/** Whether texts are written on this device. @param {ModelCard} card */
export function writesHere(card) {
	return card.serverless || $("write-here").checked;
}

/**
 * How likely the model finds the characters of a text.
 * @param {ScoreBody} body @param {ModelCard} card @param {AbortSignal} signal @returns {Promise<{ chars: Character[] }>}
 */
export async function score(body, card, signal) {
	if (!writesHere(card)) return post("/score", body, signal);
	const { scoreHere } = await import("../engine/client.js");
	return scoreHere(body, card, signal);
}
