// The service worker of a site that has no server (app/export.py), where it stands beside the page: keeps all of the
// site's files, so that the page opens and writes without a network.

const FILES = "files.json"; // {version, files}: app/export.py writes it

addEventListener("install", (event) => /** @type {any} */ (event).waitUntil(keep()));
addEventListener("fetch", (event) => {
	const { request } = /** @type {any} */ (event);
	if (request.method === "GET") /** @type {any} */ (event).respondWith(answer(request));
});

/** Fetches the files of this version; then those of others are dropped. */
async function keep() {
	const { version, files } = await (await fetch(FILES, { cache: "no-cache" })).json();
	const cache = await caches.open(version);
	await cache.addAll(files);
	for (const name of await caches.keys()) if (name !== version) await caches.delete(name);
}

/** The site's newest version where there is a network, else what was kept. @param {Request} request */
async function answer(request) {
	const kept = () => caches.match(request, { ignoreSearch: true });
	const isImmutable = request.url.includes("/weights/");
	if (isImmutable) return (await kept()) ?? fetch(request);
	try {
		return await fetch(request);
	} catch (error) {
		const found = await kept();
		if (found) return found;
		throw error;
	}
}
