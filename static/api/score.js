// Whether texts are written and scored by the server or on this device, and scores from either.

import { $ } from "../ui/dom.js";
import { post } from "./sse.js";

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
