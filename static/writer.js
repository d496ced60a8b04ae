// One request on its way: from the stream's events to cells in documents. Knows nothing of buttons.

import { stream } from "./sse.js";

/** What was asked for and what came: enough to write it again, and to compare. */
export class Request {
  /** `prefix` is all the text that the request continues; `parameters` are those sent, without the prompt. */
  constructor(prefix, parameters, seed = null) {
    this.prefix = prefix;
    this.parameters = parameters;
    this.seed = seed; // the server's choice if null
    this.checkpoint = null;
    this.numerics = null;
    this.receipt = null;
    this.timing = null;
    this.runs = [];
  }

  get characters() {
    return this.runs.reduce((sum, run) => sum + run.cells.length, 0);
  }
}

/**
 * Sends a request and hands its text on: `onStart()` when the server begins or goes on, `onCells(run, cells)` as
 * they come,
 * `onWait(milliseconds)` while the connection is lost.
 *
 * Throws what `stream` throws.
 */
export async function write(request, { card, signal, onStart, onCells, onWait }) {
  const prompt = Array.from(request.prefix).slice(-card.block_size).join("");
  const body = { ...request.parameters, prompt, details: true, alternatives: 0 };
  if (request.seed !== null) body.seed = request.seed;
  for await (const { event, data } of stream("/generate", body, signal, onWait)) {
    if (event === "start") {
      if (request.runs.length === 0) begin(request, data, card);
      onStart();
    } else if (event === "text") {
      const run = request.runs[data.sample];
      const known = run.cells.length - data.index; // never negative; positive only if the server repeats itself
      const cells = data.chars.slice(known).map((one, i) => cellOf(one, run, run.cells.length + i));
      run.cells.push(...cells);
      onCells(run, cells);
    } else if (event === "end") {
      request.runs[data.sample].finish = data.finish_reason;
    } else if (event === "done") {
      request.receipt = data.receipt;
      request.timing = data.timing;
    }
  }
}

function begin(request, { seed, checkpoint, parameters }, card) {
  Object.assign(request, { seed, checkpoint, numerics: card.numerics });
  for (let sample = 0; sample < parameters.num_samples; sample++) {
    const { prefix } = request;
    request.runs.push({ request, prefix, seed, sample, parameters, cells: [], finish: null });
  }
}

function cellOf({ char, prob, rank, entropy }, run, at) {
  return Object.freeze({ c: char, run, at, prob, rank, entropy });
}
