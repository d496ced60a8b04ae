// A text as a link, a text file or a JSON file. The link holds what writes it again (prompt, parameters, seed, the
// checkpoint's identity) and fingerprints to compare by; nothing is stored on the server.

import { textOf } from "./document.js";

const VERSION = 1;
const SHORT_VERSION = 2; // with a fingerprint of each text as a whole: it says whether a text differs, but not where
const MAX_PIECES = 64; // fingerprints in a link
const MIN_PIECE = 16; // characters in a piece
/** @type {(keyof Settings)[]} */
const FIELDS = ["temperature", "top_k", "top_p", "min_p", "max_new_tokens", "num_samples"];
const SEPARATOR = "---------------"; // between texts, as nanoGPT prints it
export const MAX_FRAGMENT = 200_000; // characters

/**
 * The link to a request, as the part of an address after #.
 * @param {Pick<RequestRecord, "prefix" | "seed" | "checkpoint" | "numerics" | "runs" | "parameters">} request
 */
export async function toFragment({ prefix, seed, checkpoint, numerics, runs, parameters }) {
	const sent = { ...parameters, max_new_tokens: longestOf(runs) };
	const samples = runs.map(({ cells }) => fingerprints(textOf(cells)));
	return packed([VERSION, checkpoint, numerics, seed, prefix, sent, samples]);
}

/**
 * The shortest link to a request, for QR codes and messages.
 * @param {Pick<RequestRecord, "prefix" | "seed" | "checkpoint" | "numerics" | "runs" | "parameters">} request
 */
export async function toShortFragment({ prefix, seed, checkpoint, numerics, runs, parameters }) {
	const sent = { ...parameters, max_new_tokens: longestOf(runs) };
	const samples = runs.map(({ cells }) => [cells.length, fnv1a(cells.map(({ c }) => c))]);
	const values = FIELDS.map((name) => sent[name] ?? null);
	return packed([SHORT_VERSION, checkpoint, numerics, seed, prefix, values, samples]);
}

/** @param {Run[]} runs */
function longestOf(runs) {
	return Math.max(...runs.map(({ cells }) => cells.length));
}

/** @param {unknown[]} content */
async function packed(content) {
	const bytes = new TextEncoder().encode(JSON.stringify(content));
	return `s=${toBase64(await transformed(new CompressionStream("deflate-raw"), bytes))}`;
}

/**
 * What a link's fragment holds; null if it is no link.
 * @param {string} fragment @returns {Promise<SharedText | null>}
 */
export async function fromFragment(fragment) {
	if (!fragment.startsWith("s=") || fragment.length > MAX_FRAGMENT) return null;
	try {
		const bytes = await transformed(new DecompressionStream("deflate-raw"), fromBase64(fragment.slice(2)));
		const content = JSON.parse(new TextDecoder().decode(bytes));
		const [version, checkpoint, numerics, seed, prefix, sent, samples] = lengthened(content);
		const given = FIELDS.filter((name) => name in sent);
		/** @type {Partial<Settings>} */
		const parameters = Object.fromEntries(given.map((name) => [name, sent[name]]));
		const valid =
			version === VERSION &&
			[checkpoint, numerics, prefix].every((value) => typeof value === "string") &&
			Number.isSafeInteger(seed) &&
			Object.values(parameters).every((value) => value === null || Number.isFinite(value)) &&
			samples.length === (parameters.num_samples ?? 1) &&
			samples.every(isFingerprints);
		return valid ? { checkpoint, numerics, seed, prefix, parameters, samples } : null;
	} catch {
		return null; // cut short or mistyped: whatever went wrong, it is no link
	}
}

/** The content of a short link as that of a long one. @param {any[]} content */
function lengthened(content) {
	const [version, checkpoint, numerics, seed, prefix, values, samples] = content;
	if (version !== SHORT_VERSION) return content;
	const off = ["top_k", "top_p", "min_p"]; // for which null has a meaning
	const given = FIELDS.map((name, i) => [name, values[i]]).filter(
		([name, value]) => value !== null || off.includes(name),
	);
	const prints = samples.map((/** @type {[number, number]} */ [length, hash]) => {
		return { length, size: Math.max(MIN_PIECE, length), pieces: length ? [hash] : [] };
	});
	return [VERSION, checkpoint, numerics, seed, prefix, Object.fromEntries(given), prints];
}

/** @param {Fingerprints} value */
function isFingerprints({ length, size, pieces }) {
	return length >= 0 && size >= MIN_PIECE && Array.isArray(pieces);
}

/**
 * The first character at which a text may differ from the one of these fingerprints, or -1 if it is the same.
 * @param {string} text @param {Fingerprints} other
 */
export function difference(text, { length, size, pieces }) {
	const own = fingerprints(Array.from(text).slice(0, length).join(""), size);
	const first = pieces.findIndex((piece, i) => piece !== own.pieces[i]);
	if (first === -1) return own.length === length ? -1 : own.length;
	return first * size;
}

/** All texts, one after another as nanoGPT prints them. @param {Branch[]} branches */
export function toText(branches) {
	return branches.map(({ doc }) => `${doc.text}\n`).join(`${SEPARATOR}\n`);
}

/**
 * The text, what wrote it, and the receipt of its last request, in the form that `python -m model.verify` reads.
 * @param {Branch} branch @param {RequestRecord | null} request
 */
export function toJson(branch, request) {
	const { checkpoint = null, numerics = null, seed = null, receipt = null, runs = [] } = request ?? {};
	const samples = runs.map(({ sample, cells, finish }, i) => ({
		index: sample,
		text: textOf(cells),
		finish_reason: finish,
		...(receipt && { sha256: receipt.samples[i].sha256 }),
	}));
	const content = { document: branch.doc.text, checkpoint, numerics, seed, samples, ...(receipt && { receipt }) };
	return `${JSON.stringify(content, null, 1)}\n`;
}

/** Lets the browser save a file. @param {string} name @param {string} type @param {BlobPart} content */
export function download(name, type, content) {
	const link = document.createElement("a");
	link.href = URL.createObjectURL(new Blob([content], { type }));
	link.download = name;
	link.click();
	URL.revokeObjectURL(link.href);
}

/** @param {string} text @param {number | null} pieceSize @returns {Fingerprints} */
function fingerprints(text, pieceSize = null) {
	const characters = Array.from(text);
	const size = pieceSize ?? Math.max(MIN_PIECE, Math.ceil(characters.length / MAX_PIECES));
	const pieces = [];
	for (let i = 0; i < characters.length; i += size) pieces.push(fnv1a(characters.slice(i, i + size)));
	return { length: characters.length, size, pieces };
}

/** FNV-1a of 32 bits over code points (draft-eastlake-fnv). @param {string[]} characters */
function fnv1a(characters) {
	let hash = 0x811c9dc5;
	for (const c of characters) hash = Math.imul(hash ^ /** @type {number} */ (c.codePointAt(0)), 0x01000193) >>> 0;
	return hash;
}

/** @param {CompressionStream | DecompressionStream} transform @param {Uint8Array<ArrayBuffer>} bytes */
async function transformed(transform, bytes) {
	const response = new Response(new Blob([bytes]).stream().pipeThrough(transform));
	return new Uint8Array(await response.arrayBuffer());
}

/** @param {Uint8Array} bytes */
function toBase64(bytes) {
	const text = Array.from(bytes, (byte) => String.fromCharCode(byte)).join("");
	return btoa(text).replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");
}

/** @param {string} text */
function fromBase64(text) {
	return Uint8Array.from(atob(text.replace(/-/g, "+").replace(/_/g, "/")), (c) => c.charCodeAt(0));
}
