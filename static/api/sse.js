// Server-sent events from a POST request, with reconnection. Owns the wire format; knows nothing of the page.
// https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation

export const FIRST_WAIT = 500; // milliseconds before the first new attempt, twice as long before each other one
export const MAX_WAIT = 5000;
const STREAM = "text/event-stream";
const MAX_SILENCE = 40_000; // milliseconds; the server sends a comment every 15 s

/** Whether the page is a single file (app/export.py). */
export const isSingleFile = "singleFile" in document.documentElement.dataset;

/** @type {string | null} */
let key = null; // the API key, if the server wants one

/** A refusal or an error event: the server's problem object (RFC 9457) as an Error. */
export class ProblemError extends Error {
	/** @param {Problem} problem */
	constructor(problem) {
		super(problem.detail ?? problem.title ?? "the server refused the request");
		this.problem = problem;
	}
}

/**
 * `fetch` of one of the server's routes, such as "/info", with an API key where the server wants one: the reader is
 * asked for it when a request is refused without, unless it is `quiet`. Routes are relative to this file (static/api/),
 * as the page may be served under any path. A page that is a single file answers from what stands in it.
 * @param {string} path @param {RequestInit} options @param {boolean} quiet
 */
export async function send(path, options = {}, quiet = false) {
	if (isSingleFile) return (await import("./held_files.js")).heldFile(path.slice(1));
	const url = new URL(`../..${path}`, import.meta.url);
	for (;;) {
		const sent = key;
		const headers = new Headers(options.headers);
		if (sent) headers.set("authorization", `Bearer ${sent}`);
		const response = await fetch(url, { ...options, headers });
		if (response.status !== 401) return response;
		if (key !== sent) continue; // another request has been given one meanwhile
		if (quiet) return response;
		const { nextKey } = await import("./api_key.js");
		const next = await nextKey(sent);
		if (!next) return response;
		key = next;
	}
}

/** Turns chunks of text, cut anywhere, into {event, data, id} objects. */
export class EventParser {
	#rest = "";
	#name = "message";
	/** @type {string[]} */ #data = [];
	#id = "";

	/** Yields each event that is complete with this chunk. @param {string} chunk @returns {Generator<RawEvent>} */
	*push(chunk) {
		const lines = (this.#rest + chunk).split(/\r\n|\n|\r(?!$)/);
		this.#rest = lines.pop() ?? "";
		for (const line of lines) {
			if (line === "") {
				if (this.#data.length > 0) yield { event: this.#name, data: this.#data.join("\n"), id: this.#id };
				this.#name = "message";
				this.#data = [];
			} else if (!line.startsWith(":")) {
				const [name, value] = line.split(/: ?(.*)/s);
				this.#setField(name, value);
			}
		}
	}

	/** @param {string} name @param {string} value */
	#setField(name, value = "") {
		if (name === "data") this.#data.push(value);
		else if (name === "event") this.#name = value;
		else if (name === "id") this.#id = value;
	}
}

/**
 * Sends `body` as JSON and yields each event, with its data parsed, up to `done`.
 *
 * When the connection is lost, or the server goes down and promises to come back, the rest is requested again, as often
 * as it takes; `start` may therefore come several times. A server that is busy is asked again when it says so.
 * Throws ProblemError when the server refuses or reports an error, AbortError when `signal` is aborted.
 * @param {string} url @param {object} body @param {StreamOptions} options @returns {AsyncGenerator<ServerEvent>}
 */
export async function* stream(url, body, { signal, retryBusy, onWait }) {
	let lastId = "";
	let sent = body;
	let wait = FIRST_WAIT;
	let retry = retryBusy;
	for (;;) {
		let busy = false;
		try {
			for await (const event of connect(url, sent, lastId, signal)) {
				if (event.id) lastId = event.id;
				if (event.event === "start") sent = { ...body, seed: event.data.seed };
				wait = FIRST_WAIT;
				yield event;
				if (event.event === "done") return;
			}
		} catch (error) {
			if (signal.aborted) throw error;
			if (error instanceof ProblemError) {
				if (!isTemporary(error)) throw error;
				const begun = sent !== body;
				busy = !begun && !retry;
				if (busy) wait = 1000 * (error.problem.retry_after ?? MAX_WAIT / 1000);
			}
		}
		retry = false;
		onWait(wait, busy);
		await pause(wait, signal);
		wait = busy ? FIRST_WAIT : Math.min(2 * wait, MAX_WAIT);
	}
}

/**
 * Whether a refusal may pass by itself: a server that is busy, stops, or is away behind a proxy.
 * @param {ProblemError} error
 */
export function isTemporary({ problem: { status } }) {
	return status === 429 || status >= 502;
}

/**
 * The events of one connection.
 * @param {string} url @param {object} body @param {string} lastId @param {AbortSignal} signal
 * @returns {AsyncGenerator<ServerEvent>}
 */
async function* connect(url, body, lastId, signal) {
	/** @type {Record<string, string>} */
	const headers = { "content-type": "application/json", accept: STREAM };
	if (lastId) headers["last-event-id"] = lastId;
	const response = await send(url, { method: "POST", headers, body: JSON.stringify(body), signal });
	const type = response.headers.get("content-type") ?? "";
	const isStream = type.startsWith(STREAM);
	// Of headers that are cut off, Chromium takes what has come.
	if (response.ok && !isStream && STREAM.startsWith(type)) throw new TypeError("cut off");
	if (!response.ok || !response.body || !isStream) {
		throw new ProblemError(await problemOf(response));
	}
	const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
	const parser = new EventParser();
	for (;;) {
		const { value, done } = await withTimeout(reader.read());
		if (done) return;
		for (const { event, data, id } of parser.push(value)) {
			const parsed = JSON.parse(data);
			if (event === "error") throw new ProblemError(parsed);
			yield /** @type {ServerEvent} */ ({ event, data: parsed, id });
		}
	}
}

/**
 * The answer to a POST of `body`, as JSON. Throws ProblemError when the server refuses.
 * @param {string} url @param {object} body @param {AbortSignal} signal @param {boolean} quiet Whether no key is asked for.
 */
export async function post(url, body, signal, quiet = false) {
	const headers = { "content-type": "application/json", accept: "application/json" };
	return answerOf(await send(url, { method: "POST", headers, body: JSON.stringify(body), signal }, quiet));
}

/**
 * The answer to a GET, as JSON. Throws ProblemError when the server refuses.
 * @param {string} url @param {AbortSignal} signal
 */
export async function get(url, signal) {
	return answerOf(await send(url, { signal }));
}

/** @param {Response} response */
async function answerOf(response) {
	if (!response.ok) throw new ProblemError(await problemOf(response));
	return response.json();
}

/** @param {Response} response @returns {Promise<Problem>} */
async function problemOf(response) {
	const { status, statusText, headers } = response;
	const type = headers.get("content-type") ?? "";
	const retry = Number(headers.get("retry-after")) || undefined; // seconds; no server of ours sends a date
	const detail = `the server answered ${status} ${statusText}`;
	const problem = type.includes("json") ? await response.json() : { status, detail };
	return { retry_after: retry, ...problem };
}

/**
 * What `reading` gives; a TypeError when nothing comes for too long, as a network can be gone without a sign.
 * @template T @param {Promise<T>} reading
 */
async function withTimeout(reading) {
	let timer = 0;
	/** @type {Promise<never>} */
	const silence = new Promise((_, reject) => {
		timer = setTimeout(() => reject(new TypeError("the server is silent")), MAX_SILENCE);
	});
	try {
		return await Promise.race([reading, silence]);
	} finally {
		clearTimeout(timer);
	}
}

/** @param {number} milliseconds @param {AbortSignal} signal @returns {Promise<void>} */
function pause(milliseconds, signal) {
	return new Promise((resolve, reject) => {
		const stop = () => {
			clearTimeout(timer);
			reject(signal.reason);
		};
		const timer = setTimeout(() => {
			signal.removeEventListener("abort", stop);
			resolve();
		}, milliseconds);
		signal.addEventListener("abort", stop);
	});
}
