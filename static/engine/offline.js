// The service worker of a site that has no server (app/export.py), where it stands beside the page: keeps all of the
// site's files, so that the page opens and writes without a network.

const VERSION = "none"; // of the site; app/export.py writes it here, since browsers look for changes of this file alone
const FILES = "files.json"; // their names: app/export.py writes it
// An origin may have several sites, each with caches of its own.
const PREFIX = `soliloquy ${/** @type {any} */ (self).registration.scope} `;

addEventListener("install", (event) => /** @type {any} */ (event).waitUntil(keep()));
addEventListener("fetch", (event) => {
	const { request } = /** @type {any} */ (event);
	if (request.method === "GET") /** @type {any} */ (event).respondWith(answer(request));
});

/** Fetches the files of this version; then those of the site's others are dropped. */
async function keep() {
	/** @type {string[]} */
	const files = await (await fetch(FILES, { cache: "no-cache" })).json();
	const cache = await caches.open(PREFIX + VERSION);
	await cache.addAll(files.map((name) => new Request(name, { cache: isImmutable(name) ? "default" : "reload" })));
	const others = (await caches.keys()).filter((name) => name.startsWith(PREFIX) && name !== PREFIX + VERSION);
	for (const name of others) await caches.delete(name);
}

/** Whether an address names what is in the file. @param {string} address */
function isImmutable(address) {
	return address.includes("weights/") || address.includes("index/");
}

/** The site's newest version where there is a network, else what was kept. @param {Request} request */
async function answer(request) {
	const cache = await caches.open(PREFIX + VERSION);
	const kept = () => cache.match(request, { ignoreSearch: true });
	if (isImmutable(request.url)) return (await kept()) ?? fetch(request);
	try {
		return await fetch(request);
	} catch (error) {
		const found = await kept();
		if (found) return found;
		throw error;
	}
}
