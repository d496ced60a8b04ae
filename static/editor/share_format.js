// A text as a link, a text file or a JSON file. The link holds what writes it again (prompt, parameters, seed, the
// checkpoint's identity) and fingerprints to compare by; nothing is stored on the server.

import { textOf } from "./document.js";

const VERSION = 1;
const PIECES = 64; // fingerprints in a link, at most
const FIELDS = ["temperature", "top_k", "top_p", "min_p", "max_new_tokens", "num_samples"];
export const LONGEST = 200_000; // characters in a fragment that is worth reading
const SHORTEST = 16; // characters in a piece, at least
export const RULE = "---------------";

/** The link to a request, as the part of an address after #. */
export async function toFragment(request) {
  const { prefix, seed, checkpoint, numerics, runs, parameters } = request;
  const longest = Math.max(...runs.map(({ cells }) => cells.length));
  const samples = runs.map(({ cells }) => fingerprints(textOf(cells)));
  const asked = { ...parameters, max_new_tokens: longest };
  const bytes = new TextEncoder().encode(JSON.stringify([VERSION, checkpoint, numerics, seed, prefix, asked, samples]));
  return `s=${toBase64(await through(new CompressionStream("deflate-raw"), bytes))}`;
}

/** What a link's fragment holds, {checkpoint, numerics, seed, prefix, parameters, samples}; null if it is no link. */
export async function fromFragment(fragment) {
  if (!fragment.startsWith("s=") || fragment.length > LONGEST) return null;
  try {
    const bytes = await through(new DecompressionStream("deflate-raw"), fromBase64(fragment.slice(2)));
    const [version, checkpoint, numerics, seed, prefix, asked, samples] = JSON.parse(new TextDecoder().decode(bytes));
    const parameters = Object.fromEntries(FIELDS.filter((name) => name in asked).map((name) => [name, asked[name]]));
    const sound =
      version === VERSION &&
      [checkpoint, numerics, prefix].every((value) => typeof value === "string") &&
      Number.isSafeInteger(seed) &&
      Object.values(parameters).every((value) => value === null || Number.isFinite(value)) &&
      samples.length === (parameters.num_samples ?? 1) &&
      samples.every(({ length, size, pieces }) => length >= 0 && size >= SHORTEST && Array.isArray(pieces));
    return sound ? { checkpoint, numerics, seed, prefix, parameters, samples } : null;
  } catch {
    return null; // cut short or mistyped: whatever went wrong, it is no link
  }
}

/** The first character at which a text may differ from the one of these fingerprints, or -1 if it is the same. */
export function difference(text, { length, size, pieces }) {
  const own = fingerprints(Array.from(text).slice(0, length).join(""), size);
  const place = pieces.findIndex((piece, i) => piece !== own.pieces[i]);
  if (place === -1) return own.length === length ? -1 : own.length;
  return place * size;
}

/** All texts, one after another as nanoGPT prints them. */
export function toText(branches) {
  return branches.map(({ doc }) => `${doc.text}\n`).join(`${RULE}\n`);
}

/** The text, what wrote it, and the receipt of its last request, in the form that `python -m model.verify` reads. */
export function toJson(branch, request) {
  const samples = request?.runs.map(({ sample, cells, finish }, i) => ({
    index: sample,
    text: textOf(cells),
    finish_reason: finish,
    ...(request.receipt && { sha256: request.receipt.samples[i].sha256 }),
  }));
  const { checkpoint = null, numerics = null, seed = null, receipt } = request ?? {};
  const content = { document: branch.doc.text, checkpoint, numerics, seed, samples: samples ?? [], ...(receipt && { receipt }) };
  return `${JSON.stringify(content, null, 1)}\n`;
}

/** Lets the browser save a file. */
export function download(name, type, text) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type }));
  link.download = name;
  link.click();
  URL.revokeObjectURL(link.href);
}

function fingerprints(text, size = null) {
  const characters = Array.from(text);
  const each = size ?? Math.max(SHORTEST, Math.ceil(characters.length / PIECES));
  const pieces = [];
  for (let i = 0; i < characters.length; i += each) pieces.push(fnv1a(characters.slice(i, i + each)));
  return { length: characters.length, size: each, pieces };
}

/** FNV-1a of 32 bits over code points (draft-eastlake-fnv). */
function fnv1a(characters) {
  return characters.reduce((hash, c) => Math.imul(hash ^ c.codePointAt(0), 0x01000193) >>> 0, 0x811c9dc5);
}

async function through(transform, bytes) {
  return new Uint8Array(await new Response(new Blob([bytes]).stream().pipeThrough(transform)).arrayBuffer());
}

function toBase64(bytes) {
  const text = Array.from(bytes, (byte) => String.fromCharCode(byte)).join("");
  return btoa(text).replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");
}

function fromBase64(text) {
  return Uint8Array.from(atob(text.replace(/-/g, "+").replace(/_/g, "/")), (c) => c.charCodeAt(0));
}
