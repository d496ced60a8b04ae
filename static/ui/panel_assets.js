// The texts and styles of what a reader opens, such as the panels: no part of the first sight, loaded once.

import { isSingleFile, send } from "../api/sse.js";
import { $ } from "./dom.js";
import { addTexts } from "./i18n.js";

/** @type {Promise<unknown> | null} */
let loading = null;

/**
 * What `importing` resolves to, once the texts and styles are there too. Throws a TypeError, as `fetch` does, when the
 * server cannot be reached; the next call tries again.
 * @template T @param {Promise<T>} importing
 */
export async function withAssets(importing) {
	loading ??= Promise.all([loadTexts(), loadStyles()]).catch((error) => {
		loading = null;
		throw error;
	});
	const [loaded] = await Promise.all([importing, loading]);
	return loaded;
}

async function loadTexts() {
	if ("whole" in $("texts").dataset) return; // the page stands alone
	const response = await send(`/texts?lang=${document.documentElement.lang}`);
	if (!response.ok) throw new TypeError(`the texts were not sent: ${response.status}`);
	addTexts(await response.json());
}

/** @returns {Promise<void>} */
async function loadStyles() {
	if (isSingleFile) return; // they stand in it
	const address = new URL("../panels.css", import.meta.url).href;
	const link = document.createElement("link");
	link.rel = "stylesheet";
	link.href = address;
	return new Promise((resolve, reject) => {
		link.addEventListener("load", () => resolve());
		link.addEventListener("error", () => {
			link.remove();
			reject(new TypeError("the styles were not sent"));
		});
		document.head.append(link);
	});
}
