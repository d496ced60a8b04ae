// Texts that are written on this device, as the events of a stream of the server's /generate: whoever reads them cannot
// tell the two apart. Loads the engine's files once; after that it needs no network.

import { ProblemError, send } from "../api/sse.js";

const SEED_LIMIT = 2 ** 53;
const NUMERICS = "cpu-int8"; // what the engine's texts are of
const DEFAULTS = { max_new_tokens: 500, num_samples: 1, stop: [] };
const MAX_SAMPLES = 16; // as the server's

/** @type {Promise<Worker> | null} */
let loading = null;
let requests = 0;

/**
 * Fetches the engine and the weights, unless that was done; calls `onProgress` with the share of bytes that has come.
 * Throws ProblemError when they cannot be had or used.
 * @param {ModelCard} card @param {(share: number) => void} onProgress
 */
export function load(card, onProgress = () => {}) {
	loading ??= start(card, onProgress).catch((error) => {
		loading = null; // the next attempt asks again
		throw error;
	});
	return loading;
}

/** @param {ModelCard} card @param {(share: number) => void} onProgress @returns {Promise<Worker>} */
async function start(card, onProgress) {
	const worker = new Worker(new URL("worker.js", import.meta.url), { type: "module" });
	const coming = answers(worker, 0);
	const loaded = coming.next();
	loaded.catch(() => {}); // it may fail before it is awaited
	try {
		const engine = await fetch(new URL("network.wasm", import.meta.url));
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

/** @param {string} path @param {(share: number) => void} onProgress */
async function download(path, onProgress) {
	const response = await send(path);
	if (!response.ok || !response.body) {
		throw new ProblemError({ status: response.status, detail: `the server answered ${response.status}` });
	}
	const size = Number(response.headers.get("x-weights-bytes") ?? response.headers.get("content-length"));
	const parts = [];
	let received = 0;
	const reader = response.body.getReader();
	for (;;) {
		const { value } = await reader.read();
		if (!value) break;
		parts.push(value);
		received += value.length;
		if (size > 0) onProgress(Math.min(1, received / size));
	}
	return new Blob(parts).arrayBuffer();
}

/**
 * Writes a request here; yields the server's events, with text as it comes.
 * @param {Settings & { prompt: string }} body @param {ModelCard} card
 * @param {{ signal: AbortSignal, alternatives?: number }} options
 * @returns {AsyncGenerator<ServerEvent>}
 */
export async function* streamHere(body, card, { signal, alternatives = 0 }) {
	const worker = await load(card);
	signal.throwIfAborted();
	const { temperature, top_k, top_p, min_p } = body;
	const prompt = body.prompt || card.default_prompt;
	const given = { max_new_tokens: body.max_new_tokens, num_samples: body.num_samples };
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
		worker.postMessage({ type: "write", id, seed, parameters, alternatives });
		for await (const { type, data, samples } of coming) {
			if (type === "text") characters += data.chars.length;
			if (type !== "done") yield { id: "", event: type, data };
			else {
				const timing = { characters_per_second: (1000 * characters) / (performance.now() - started) };
				const receipt = { checkpoint: card.identity, numerics: NUMERICS, seed, parameters, samples };
				yield { id: "", event: "done", data: { timing, receipt } };
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
	const worker = await load(card);
	const id = (requests += 1);
	const coming = answers(worker, id, signal);
	const answer = coming.next();
	const prompt = body.prompt || card.default_prompt;
	worker.postMessage({ type: "score", id, body: { ...body, prompt } });
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
