// One request: from the events of a stream, the server's or this device's, to cells. Knows nothing of buttons.
//
// docs/architecture.md follows a `text` event from here to the page.

import { ProblemError, stream } from "./sse.js";

/** A request and what came of it: enough to write it again, and to compare. @implements {RequestRecord} */
export class GenerationRequest {
	/** @type {string | null} */ checkpoint = null;
	/** @type {string | null} */ numerics = null;
	/** @type {Receipt | null} */ receipt = null;
	/** @type {Timing | null} */ timing = null;
	/** @type {Report[] | null} */ reports = null;
	/** @type {Run[]} */ runs = [];

	/** @param {string} prefix @param {Settings} parameters @param {number | null} seed */
	constructor(prefix, parameters, seed = null) {
		this.prefix = prefix;
		this.start = Array.from(prefix).length;
		this.parameters = parameters;
		this.seed = seed;
	}

	get characters() {
		return this.runs.reduce((sum, run) => sum + run.cells.length, 0);
	}
}

/**
 * Sends a request and yields what the server says: `start` when it begins or goes on, `waiting` while others are before
 * it in the queue, and `text` with the cells that came in a run.
 * The request holds the rest once this ends. The options, and what is thrown, are those of `stream`.
 * @param {RequestRecord} request @param {ModelCard} card @param {GenerateOptions} options
 * @returns {AsyncGenerator<GenerationEvent>}
 */
export async function* generate(request, card, options) {
	const prompt = Array.from(request.prefix).slice(-card.block_size).join("");
	const { alternatives = 0 } = options;
	const body = { ...request.parameters, prompt, details: true, alternatives, report: card.report };
	if (request.seed !== null) body.seed = request.seed;
	if (!options.here) {
		const { leave } = options;
		const signal = leave ? AbortSignal.any([options.signal, leave]) : options.signal;
		try {
			yield* read(request, card, stream("/generate", body, { ...options, signal }));
			return;
		} catch (error) {
			if (options.signal.aborted || !options.leave?.aborted) throw error;
		}
	}
	if (request.checkpoint && request.checkpoint !== card.checkpoint) {
		throw new ProblemError({ status: 409, detail: "the server wrote with another model than the one loaded here" });
	}
	const { streamHere } = await import("../engine/client.js");
	// What the server has written is written again, and passed over: it is the same.
	yield* read(request, card, streamHere({ ...body, seed: request.seed }, card, options));
}

/**
 * What the events of a stream say, as `generate` yields it; the request holds the rest once this ends.
 * @param {RequestRecord} request @param {ModelCard} card @param {Iterable<ServerEvent> | AsyncIterable<ServerEvent>} events
 * @returns {AsyncGenerator<GenerationEvent>}
 */
export async function* read(request, card, events) {
	for await (const { event, data } of events) {
		if (event === "start") {
			if (request.runs.length === 0) begin(request, data, card);
			yield { type: "start" };
		} else if (event === "waiting") {
			yield { type: "waiting", place: data.place };
		} else if (event === "text") {
			const run = request.runs[data.sample];
			const known = run.cells.length - data.index; // never negative; positive only if the server repeats itself
			const cells = data.chars.slice(known).map((one, i) => cellOf(one, run, run.cells.length + i));
			run.cells.push(...cells);
			run.alternatives.push(...data.chars.slice(known).map((one) => one.alternatives));
			yield { type: "text", run, cells, marked: mark(run, data) };
		} else if (event === "end") {
			request.runs[data.sample].finish = data.finish_reason;
		} else if (event === "done") {
			request.receipt = data.receipt;
			request.timing = data.timing;
			request.reports = data.reports ?? null;
		}
	}
}

/** @param {RequestRecord} request @param {StartData} data @param {ModelCard} card */
function begin(request, { seed, checkpoint, numerics, parameters }, card) {
	request.seed = seed;
	request.checkpoint = checkpoint;
	request.numerics = numerics ?? card.numerics;
	const { prefix } = request;
	for (let sample = 0; sample < parameters.num_samples; sample++) {
		const marks = { lookedUp: 0, copied: [], words: [], invented: [], alternatives: [] };
		request.runs.push({ request, prefix, seed, sample, parameters, cells: [], finish: null, ...marks });
	}
}

/**
 * Notes what an event says of copies and invented words; returns the first cell that it says something of.
 * @param {Run} run @param {Pick<TextData, "index" | "copied" | "invented">} data
 */
export function mark(run, { index, copied = [], invented = [] }) {
	let first = Infinity;
	if (index + copied.length > run.lookedUp && copied.length) {
		run.lookedUp = index + copied.length;
		first = index;
	}
	copied.forEach((length, i) => {
		const at = index + i;
		run.copied[at] ??= 0;
		for (let one = at - length + 1; one <= at; one++) run.copied[one] = Math.max(run.copied[one], length);
		if (length) first = Math.min(first, at - length + 1);
	});
	for (const word of invented) {
		for (let at = word.start; at < word.end; at++) run.invented[at] = run.words.length;
		run.words.push(word);
		first = Math.min(first, word.start);
	}
	return first;
}

/** @param {Character} character @param {Run} run @param {number} at */
function cellOf({ char, prob, rank, entropy }, run, at) {
	return Object.freeze({ c: char, run, at, prob, rank, entropy });
}
