// The API key: kept for as long as the tab is open, and asked for when there is none or it is refused.

import { $, find } from "../ui/dom.js";

const STORAGE_KEY = "soliloquy-key";
const dialog = $("key");

/** @type {Promise<string | null> | null} */
let answer = null; // one dialog for all requests that wait for a key

/**
 * A key to try after `refused` (null if none was sent), or null if there is none.
 * @param {string | null} refused
 */
export async function nextKey(refused) {
	const stored = load();
	if (stored && stored !== refused) return stored;
	if (!dialog) return null; // it is not this server that wants one
	answer ??= askReader(dialog, refused !== null);
	try {
		return await answer;
	} finally {
		answer = null;
	}
}

/** @param {HTMLDialogElement} dialog @param {boolean} again @returns {Promise<string | null>} */
function askReader(dialog, again) {
	const field = find(dialog, "input");
	const error = find(dialog, "[role=alert]");
	field.value = "";
	dialog.returnValue = "";
	dialog.showModal();
	error.textContent = again ? (error.dataset.refused ?? "") : "";
	return new Promise((resolve) => {
		const onClose = () => {
			const key = field.value.replace(/[^!-~]/g, ""); // what a header can carry
			if (dialog.returnValue !== "use" || !key) {
				resolve(null);
				return;
			}
			save(key);
			resolve(key);
		};
		dialog.addEventListener("close", onClose, { once: true });
	});
}

function load() {
	try {
		return sessionStorage.getItem(STORAGE_KEY);
	} catch {
		return null; // a browser may forbid it
	}
}

/** @param {string} key */
function save(key) {
	try {
		sessionStorage.setItem(STORAGE_KEY, key);
	} catch {
		// the reader is asked again after a reload
	}
}
