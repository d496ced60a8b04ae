// Server-sent events from a POST request, with reconnection. Owns the wire format; knows nothing of the page.
// https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation

import { nextKey } from "./api_key.js";

const FIRST_WAIT = 500; // milliseconds before the first new attempt, twice as long before each other one
const LONGEST_WAIT = 5000;
const SILENCE = 40_000; // milliseconds; the server says something every 15 s

let key = null; // that the server wants, if it wants one

/** A refusal or an error event: the server's problem object (RFC 9457) as an Error. */
export class ProblemError extends Error {
  constructor(problem) {
    super(problem.detail ?? problem.title ?? "the server refused the request");
    this.problem = problem;
  }
}

/**
 * `fetch` of one of the server's routes, such as "/info", with an API key where the server wants one: it is asked for
 * when a request is refused for want of it. Routes stand beside the folder of this file, whatever path that is below.
 */
export async function send(path, options = {}) {
  const url = new URL(`..${path}`, import.meta.url);
  for (;;) {
    const sent = key;
    const headers = { ...options.headers, ...(sent && { authorization: `Bearer ${sent}` }) };
    const response = await fetch(url, { ...options, headers });
    if (response.status !== 401) return response;
    if (key !== sent) continue; // another request has been given one meanwhile
    const next = await nextKey(sent);
    if (!next) return response;
    key = next;
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
 * Sends `body` as JSON and yields each event, {event, data, id}, with its data parsed, up to `done`.
 *
 * When the connection is lost, or the server goes down and promises to come back, it asks again for the rest, as often
 * as it takes; `onWait(milliseconds)` is called before each attempt. `start` may therefore come several times. When it
 * is `patient`, a server that is busy is asked once more.
 * Throws ProblemError when the server refuses or reports an error, AbortError when `signal` is.
 */
export async function* stream(url, body, { signal, patient, onWait }) {
  let [lastId, asked, wait, again] = ["", body, FIRST_WAIT, patient];
  for (;;) {
    try {
      for await (const event of connect(url, asked, lastId, signal)) {
        if (event.id) lastId = event.id;
        if (event.event === "start") asked = { ...body, seed: event.data.seed };
        wait = FIRST_WAIT;
        yield event;
        if (event.event === "done") return;
      }
    } catch (error) {
      if (signal.aborted || (error instanceof ProblemError && !canWait(error.problem, again || asked !== body))) throw error;
    }
    again = false;
    onWait(wait);
    await pause(wait, signal);
    wait = Math.min(2 * wait, LONGEST_WAIT);
  }
}

/** Whether a problem goes by itself: a server that stops, or is busy when a text that began asks for its rest. */
function canWait({ status }, begun) {
  return begun && (status === 429 || status >= 502);
}

async function* connect(url, body, lastId, signal) {
  const headers = { "content-type": "application/json", accept: "text/event-stream" };
  if (lastId) headers["last-event-id"] = lastId;
  const response = await send(url, { method: "POST", headers, body: JSON.stringify(body), signal });
  const type = response.headers.get("content-type") ?? "";
  if (!response.ok || !type.startsWith("text/event-stream")) throw new ProblemError(await problemOf(response));
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  const parser = new EventParser();
  for (;;) {
    const { value, done } = await orSilence(reader.read());
    if (done) return;
    for (const { event, data, id } of parser.push(value)) {
      const parsed = JSON.parse(data);
      if (event === "error") throw new ProblemError(parsed);
      yield { event, data: parsed, id };
    }
  }
}

/** The answer to a POST of `body`, as JSON. Throws ProblemError when the server refuses. */
export async function ask(url, body, signal) {
  const headers = { "content-type": "application/json", accept: "application/json" };
  return answerOf(await send(url, { method: "POST", headers, body: JSON.stringify(body), signal }));
}

/** The answer to a GET, as JSON. Throws ProblemError when the server refuses. */
export async function get(url, signal) {
  return answerOf(await send(url, { signal }));
}

async function answerOf(response) {
  if (!response.ok) throw new ProblemError(await problemOf(response));
  return response.json();
}

async function problemOf(response) {
  const type = response.headers.get("content-type") ?? "";
  if (type.includes("json")) return response.json();
  return { status: response.status, detail: `the server answered ${response.status} ${response.statusText}` };
}

/** What is read, or a TypeError when nothing comes for too long: a network may be gone without a word. */
async function orSilence(reading) {
  let timer = 0;
  const silence = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new TypeError("the server is silent")), SILENCE);
  });
  try {
    return await Promise.race([reading, silence]);
  } finally {
    clearTimeout(timer);
  }
}

function pause(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    const stop = () => {
      clearTimeout(timer);
      reject(signal.reason);
    };
    const timer = setTimeout(() => {
      signal.removeEventListener("abort", stop);
      resolve();
    }, milliseconds);
    signal.addEventListener("abort", stop);
  });
}
