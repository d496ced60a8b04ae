// A text that the server has written before: what a first visitor sees being written. Knows nothing of the page.

import { EventParser, send } from "./sse.js";

/**
 * The recording of the server's model, or null while there is none.
 * @param {ModelCard} card @returns {Promise<Recording | null>}
 */
export async function loadRecording(card) {
	try {
		const response = await send("/recording");
		if (response.status !== 200) return null;
		const raw = [...new EventParser().push(await response.text())];
		const events = /** @type {ServerEvent[]} */ (
			raw.map(({ event, data, id }) => ({ event, data: JSON.parse(data), id }))
		);
		const [start] = events;
		if (start?.event !== "start" || start.data.checkpoint !== card.checkpoint) return null;
		const { prompt, ...parameters } = start.data.parameters;
		return { prompt, parameters, events };
	} catch {
		return null; // the page does without
	}
}
