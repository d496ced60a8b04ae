// The files that stand in the page itself, where it is a single file (app/export.py): it has no server, and no right to
// fetch anything. Knows nothing of what is in them.

/** A file of the page, such as "weights/…", as `fetch` would answer. @param {string} name @returns {Response} */
export function heldFile(name) {
	const element = /** @type {HTMLElement | null} */ (document.querySelector(`[data-file="${CSS.escape(name)}"]`));
	if (!element) return new Response(null, { status: 404 });
	const packed = new Blob([fromBase64(element.textContent)]).stream();
	const content = packed.pipeThrough(new DecompressionStream("gzip"));
	return new Response(content, { headers: { "x-weights-bytes": element.dataset.bytes ?? "" } });
}

/** The bytes of a text; none if it is no base64, which whoever unpacks them will find. @param {string} text */
function fromBase64(text) {
	try {
		const binary = atob(text);
		const bytes = new Uint8Array(binary.length);
		for (let i = 0; i < bytes.length; i++) bytes[i] = binary.charCodeAt(i);
		return bytes;
	} catch {
		return new Uint8Array(0);
	}
}
