// Texts that are written on this device, as the events of a stream of the server's /generate: whoever reads them cannot
// tell the two apart. Loads the engine's files once; after that it needs no network.

import { isSingleFile, ProblemError, send } from "../api/sse.js";

const SEED_LIMIT = 2 ** 53;
const NUMERICS = "cpu-int8"; // what the engine's texts are of
const DEFAULTS = { max_new_tokens: 500, num_samples: 1, stop: /** @type {readonly string[]} */ ([]) };
const MAX_SAMPLES = 16; // as the server's
const MAX_FILE_BYTES = 1 << 30; // of weights
const FIRST_BYTES = 1 << 20; // to hold a file of unknown size in

/** The thread of each model, by its identity. @type {Map<string, Promise<Worker>>} */
const loading = new Map();
/** @type {Promise<void> | null} */
let loadingIndex = null;
let requests = 0;

/**
 * Fetches the engine and the weights, unless that was done; calls `onProgress` with the share of bytes that has come.
 * Throws ProblemError when they cannot be had or used.
 * @param {ModelCard} card @param {(share: number) => void} onProgress
 */
export function load(card, onProgress = () => {}) {
	const begun = loading.get(card.identity);
	if (begun) return begun;
	const begins = start(card, onProgress).catch((error) => {
		loading.delete(card.identity); // the next attempt asks again
		throw error;
	});
	loading.set(card.identity, begins);
	return begins;
}

/** Ends the thread of a model that is not needed for now. @param {ModelCard} card */
export async function unload(card) {
	const begun = loading.get(card.identity);
	loading.delete(card.identity);
	(await begun)?.terminate();
}

/** @param {ModelCard} card @param {(share: number) => void} onProgress @returns {Promise<Worker>} */
async function start(card, onProgress) {
	const worker = await startWorker();
	const coming = answers(worker, 0);
	const loaded = coming.next();
	loaded.catch(() => {}); // it may fail before it is awaited
	try {
		const engine = await send("/static/engine/network.wasm");
		if (!engine.ok) throw new ProblemError({ status: engine.status, detail: `the engine: ${engine.status}` });
		const code = await engine.arrayBuffer();
		const file = await download(`/weights/${card.identity}`, onProgress);
		worker.postMessage({ type: "load", id: 0, file, code, checkpoint: card.identity }, [file]);
		await loaded;
		await coming.return(null);
		return worker;
	} catch (error) {
		worker.terminate();
		throw error instanceof ProblemError ? error : new ProblemError({ status: 0, detail: String(error) });
	}
}

/**
 * Fetches the index of the training text, unless that was done: texts that are written from then on have reports.
 * @param {ModelCard} card
 */
export function loadIndex(card) {
	loadingIndex ??= startIndex(card).catch((error) => {
		loadingIndex = null; // the next attempt asks again
		throw error;
	});
	return loadingIndex;
}

/** @param {ModelCard} card */
async function startIndex(card) {
	const worker = await load(card);
	const file = await download(`/index/${card.identity}`, () => {});
	const id = (requests += 1);
	const coming = answers(worker, id);
	const loaded = coming.next();
	worker.postMessage({ type: "index", id, file }, [file]);
	await loaded;
	await coming.return(null);
}

/** The engine's thread; that of a page that is a single file is one script, as a browser loads no module from a disk. */
async function startWorker() {
	if (!isSingleFile) return new Worker(new URL("worker.js", import.meta.url), { type: "module" });
	const script = await (await send("/static/engine/worker.js")).blob();
	return new Worker(URL.createObjectURL(new Blob([script], { type: "text/javascript" })));
}

/** @param {string} path @param {(share: number) => void} onProgress */
async function download(path, onProgress) {
	const response = await send(path);
	if (!response.ok || !response.body) {
		throw new ProblemError({ status: response.status, detail: `the server answered ${response.status}` });
	}
	const size = Number(response.headers.get("x-weights-bytes") ?? response.headers.get("content-length"));
	if (size > MAX_FILE_BYTES) throw problem("The file of weights is too large.");
	let file = new Uint8Array(size > 0 ? size : FIRST_BYTES); // not a Blob, which would hold it twice
	let received = 0;
	const reader = response.body.getReader();
	for (;;) {
		const { value } = await nextPart(reader);
		if (!value) break;
		if (received + value.length > MAX_FILE_BYTES) throw problem("The file of weights is too large.");
		if (received + value.length > file.length) file = enlarged(file, received + value.length);
		file.set(value, received);
		received += value.length;
		if (size > 0) onProgress(Math.min(1, received / size));
	}
	return received === file.length ? file.buffer : file.buffer.slice(0, received);
}

/** The same bytes with room for so many, and for more. @param {Uint8Array<ArrayBuffer>} bytes @param {number} needed */
function enlarged(bytes, needed) {
	const larger = new Uint8Array(Math.max(needed, 2 * bytes.length));
	larger.set(bytes);
	return larger;
}

/** What comes next of a file. @param {ReadableStreamDefaultReader<Uint8Array<ArrayBuffer>>} reader */
async function nextPart(reader) {
	try {
		return await reader.read();
	} catch {
		throw problem(
			isSingleFile
				? "The model in this file is damaged or not complete: copy the file again."
				: "The model did not arrive whole: try again.",
		);
	}
}

/** @param {string} sentence */
function problem(sentence) {
	return new ProblemError({ status: 0, detail: sentence });
}

/**
 * Writes a request here; yields the server's events, with text as it comes.
 * @param {Settings & { prompt: string, stop?: readonly string[], report?: boolean }} body @param {ModelCard} card
 * @param {{ signal: AbortSignal, alternatives?: number }} options
 * @returns {AsyncGenerator<ServerEvent>}
 */
export async function* streamHere(body, card, { signal, alternatives = 0 }) {
	const worker = await load(card);
	signal.throwIfAborted();
	const { temperature, top_k, top_p, min_p } = body;
	const prompt = body.prompt || card.default_prompt;
	const given = { max_new_tokens: body.max_new_tokens, num_samples: body.num_samples, stop: body.stop };
	const sampling = { prompt, temperature, top_k, top_p, min_p };
	/** @type {EngineParameters} */
	const parameters = { ...sampling, ...DEFAULTS, ...JSON.parse(JSON.stringify(given)) };
	const { max_new_tokens, num_samples } = parameters; // of a link, perhaps
	if (!(max_new_tokens >= 1) || !(num_samples >= 1 && num_samples <= MAX_SAMPLES)) {
		throw new ProblemError({
			status: 422,
			detail: `num_samples, max_new_tokens: ${num_samples}, ${max_new_tokens}`,
		});
	}
	const seed = body.seed ?? Math.floor(Math.random() * SEED_LIMIT);
	const id = (requests += 1);
	const stop = () => worker.postMessage({ type: "stop", id });
	signal.addEventListener("abort", stop);
	const started = performance.now();
	let characters = 0;
	try {
		const { checkpoint } = card;
		yield { id: "", event: "start", data: { id: String(id), checkpoint, numerics: NUMERICS, seed, parameters } };
		const coming = answers(worker, id, signal);
		const reported = Boolean(body.report);
		worker.postMessage({ type: "write", id, seed, parameters, alternatives, reported });
		for await (const { type, data, samples, reports } of coming) {
			if (type === "text") characters += data.chars.length;
			if (type !== "done") yield { id: "", event: type, data };
			else {
				const timing = { characters_per_second: (1000 * characters) / (performance.now() - started) };
				const receipt = { checkpoint: card.identity, numerics: NUMERICS, seed, parameters, samples };
				yield { id: "", event: "done", data: { timing, receipt, reports } };
			}
		}
	} finally {
		signal.removeEventListener("abort", stop);
	}
}

/**
 * The answer of the server's /score: what the model makes of a text's characters after a prompt.
 * @param {ScoreBody} body @param {ModelCard} card @param {AbortSignal} signal
 * @returns {Promise<{ chars: Character[] }>}
 */
export async function scoreHere(body, card, signal) {
	const prompt = body.prompt || card.default_prompt;
	return ask(await load(card), { type: "score", body: { ...body, prompt } }, signal);
}

/**
 * The answer of the server's /report; unless it is `scored`, without the bits of the model.
 * @param {string} text @param {ModelCard} card @param {AbortSignal} signal @param {boolean} scored
 * @returns {Promise<Report>}
 */
export async function reportHere(text, card, signal, scored = true) {
	await loadIndex(card);
	const request = { type: "report", text, prompt: card.default_prompt, scored };
	return (await ask(await load(card), request, signal)).report;
}

/**
 * The one answer to a request.
 * @param {Worker} worker @param {object} request @param {AbortSignal} signal @returns {Promise<any>}
 */
async function ask(worker, request, signal) {
	const id = (requests += 1);
	const coming = answers(worker, id, signal);
	const answer = coming.next();
	worker.postMessage({ ...request, id });
	try {
		return (await answer).value;
	} finally {
		if (signal.aborted) worker.postMessage({ type: "stop", id });
		await coming.return(null);
	}
}

/**
 * The worker's answers to a request, up to the last one; listens from the first `next` on.
 * @param {Worker} worker @param {number} id @param {AbortSignal | null} signal @returns {AsyncGenerator<any>}
 */
async function* answers(worker, id, signal = null) {
	/** @type {any[]} */
	const queue = [];
	let wake = () => {};
	const push = (/** @type {any} */ answer) => {
		queue.push(answer);
		wake();
	};
	const onMessage = (/** @type {MessageEvent} */ { data }) => {
		if ((data.id ?? 0) === id) push(data);
	};
	const onError = () => push({ type: "failed", message: "The engine cannot be started." });
	const onAbort = () => push({ type: "aborted" });
	worker.addEventListener("message", onMessage);
	worker.addEventListener("error", onError);
	signal?.addEventListener("abort", onAbort);
	try {
		for (;;) {
			while (queue.length === 0) await new Promise((resolve) => (wake = () => resolve(null)));
			const answer = queue.shift();
			signal?.throwIfAborted();
			if (answer.type === "failed") throw new ProblemError({ status: 0, detail: answer.message });
			yield answer;
			if (answer.type === "done" || answer.type === "loaded") return;
		}
	} finally {
		worker.removeEventListener("message", onMessage);
		worker.removeEventListener("error", onError);
		signal?.removeEventListener("abort", onAbort);
	}
}
