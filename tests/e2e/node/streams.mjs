// The events of a stream, each as [name, data]: read by an EventSource, or by fetch. For Node and for browsers.

const NAMES = ["start", "text", "end", "done", "error"];

export function bySource(EventSource, url) {
	return new Promise((resolve) => {
		const events = [];
		const source = new EventSource(url);
		for (const name of NAMES)
			source.addEventListener(name, ({ data }) => {
				events.push([name, data ? JSON.parse(data) : null]); // no data: the connection's own error
				if (name !== "done" && name !== "error") return;
				source.close(); // or it would ask again
				resolve(events);
			});
	});
}

export async function byFetch(url, request) {
	const headers = { "content-type": "application/json" };
	const response = await fetch(url, { method: "POST", headers, body: JSON.stringify(request) });
	const events = [];
	let rest = "";
	for await (const chunk of response.body.pipeThrough(new TextDecoderStream())) {
		const frames = (rest + chunk).split("\n\n");
		rest = frames.pop(); // a chunk is not an event: it may end anywhere
		for (const frame of frames) {
			const name = frame.match(/^event: (.*)$/m);
			if (name) events.push([name[1], JSON.parse(frame.match(/^data: (.*)$/m)[1])]);
		}
	}
	return events;
}
