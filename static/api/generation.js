// One request on its way: from the stream's events to cells in documents. Knows nothing of buttons.

import { stream } from "./sse.js";

/** What was asked for and what came: enough to write it again, and to compare. */
export class Request {
  /** `prefix` is all the text that the request continues; `parameters` are those sent, without the prompt. */
  constructor(prefix, parameters, seed = null) {
    this.prefix = prefix;
    this.start = Array.from(prefix).length; // the cell that the first of each run follows
    this.parameters = parameters;
    this.seed = seed; // the server's choice if null
    this.checkpoint = null;
    this.numerics = null;
    this.receipt = null;
    this.timing = null;
    this.reports = null; // one for each run, once it is written
    this.runs = [];
  }

  get characters() {
    return this.runs.reduce((sum, run) => sum + run.cells.length, 0);
  }
}

/**
 * Sends a request and hands its text on: `onStart()` when the server begins or goes on, `onCells(run, cells)` as
 * they come, `onMarks(run, from)` when copies or invented words were found in what came before, from a cell on,
 * `onWait(milliseconds)` while the connection is lost. `patient` as in `stream`.
 *
 * Throws what `stream` throws.
 */
export async function write(request, { card, signal, patient, onStart, onCells, onMarks, onWait }) {
  const prompt = Array.from(request.prefix).slice(-card.block_size).join("");
  const body = { ...request.parameters, prompt, details: true, alternatives: 0, report: card.report };
  if (request.seed !== null) body.seed = request.seed;
  for await (const { event, data } of stream("/generate", body, { signal, patient, onWait })) {
    if (event === "start") {
      if (request.runs.length === 0) begin(request, data, card);
      onStart();
    } else if (event === "text") {
      const run = request.runs[data.sample];
      const known = run.cells.length - data.index; // never negative; positive only if the server repeats itself
      const cells = data.chars.slice(known).map((one, i) => cellOf(one, run, run.cells.length + i));
      run.cells.push(...cells);
      const from = mark(run, data);
      onCells(run, cells);
      if (from < run.cells.length - cells.length) onMarks(run, from);
    } else if (event === "end") {
      request.runs[data.sample].finish = data.finish_reason;
    } else if (event === "done") {
      request.receipt = data.receipt;
      request.timing = data.timing;
      request.reports = data.reports ?? null;
    }
  }
}

function begin(request, { seed, checkpoint, parameters }, card) {
  Object.assign(request, { seed, checkpoint, numerics: card.numerics });
  for (let sample = 0; sample < parameters.num_samples; sample++) {
    const { prefix } = request;
    const marks = { copied: [], words: [], invented: [] }; // by cell: longest run copied through it, number of its word
    request.runs.push({ request, prefix, seed, sample, parameters, cells: [], finish: null, ...marks });
  }
}

/** Notes what an event says of copies and invented words; returns the first cell that it says something of. */
function mark(run, { index, copied = [], invented = [] }) {
  let first = Infinity;
  copied.forEach((length, i) => {
    const at = index + i;
    run.copied[at] ??= 0;
    for (let one = at - length + 1; one <= at; one++) run.copied[one] = Math.max(run.copied[one], length);
    if (length) first = Math.min(first, at - length + 1);
  });
  for (const word of invented) {
    for (let at = word.start; at < word.end; at++) run.invented[at] = run.words.length;
    run.words.push(word);
    first = Math.min(first, word.start);
  }
  return first;
}

function cellOf({ char, prob, rank, entropy }, run, at) {
  return Object.freeze({ c: char, run, at, prob, rank, entropy });
}
