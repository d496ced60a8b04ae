// Server-sent events from a POST request. Owns the wire format; knows nothing of the page.
// https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation

/** A refusal or an error event: the server's problem object (RFC 9457) as an Error. */
export class ProblemError extends Error {
  constructor(problem) {
    super(problem.detail ?? problem.title ?? "the server refused the request");
    this.problem = problem;
  }
}

/** Turns chunks of text, cut anywhere, into {event, data, id} objects. */
export class EventParser {
  #rest = "";
  #event = { event: "message", data: [], id: "" };

  /** Yields each event that is complete with this chunk. */
  *push(chunk) {
    const lines = (this.#rest + chunk).split(/\r\n|\n|\r(?!$)/);
    this.#rest = lines.pop();
    for (const line of lines) {
      if (line === "") {
        const { event, data, id } = this.#event;
        this.#event = { event: "message", data: [], id };
        if (data.length > 0) yield { event, data: data.join("\n"), id };
      } else if (!line.startsWith(":")) {
        this.#field(...line.split(/: ?(.*)/s));
      }
    }
  }

  #field(name, value = "") {
    if (name === "data") this.#event.data.push(value);
    else if (name === "event") this.#event.event = value;
    else if (name === "id") this.#event.id = value;
  }
}

/**
 * Sends `body` as JSON and yields each event with its data parsed.
 * Throws ProblemError when the server refuses or reports an error, TypeError when the network fails.
 */
export async function* stream(url, body, signal) {
  const response = await fetch(url, {
    method: "POST",
    headers: { "content-type": "application/json", accept: "text/event-stream" },
    body: JSON.stringify(body),
    signal,
  });
  if (!response.ok) throw new ProblemError(await problemOf(response));
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  const parser = new EventParser();
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    for (const { event, data } of parser.push(value)) {
      const parsed = JSON.parse(data);
      if (event === "error") throw new ProblemError(parsed);
      yield { event, data: parsed };
    }
  }
}

async function problemOf(response) {
  const type = response.headers.get("content-type") ?? "";
  if (type.includes("json")) return response.json();
  return { status: response.status, detail: `the server answered ${response.status} ${response.statusText}` };
}
