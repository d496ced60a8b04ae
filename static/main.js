// The page: Write and Stop, samples that grow, what happened in a line.

import { clearErrors, request, showMessage, showProblem } from "./form.js";
import { SampleView } from "./sample.js";
import { ProblemError, stream } from "./sse.js";

const form = document.getElementById("form");
const writeButton = document.getElementById("write");
const stopButton = document.getElementById("stop");
const status = document.getElementById("status");
const samples = document.getElementById("samples");
const actions = document.querySelector(".actions");

let running = null; // the AbortController of the request under way

async function write() {
  stop();
  clearErrors();
  const controller = new AbortController();
  running = controller;
  setBusy(true);
  const run = { views: [], seed: null, written: 0 };
  try {
    for await (const { event, data } of stream("/generate", request(), controller.signal)) {
      handle(run, event, data);
    }
    if (!run.done) throw new TypeError("the stream ended early");
  } catch (error) {
    if (running === controller || !controller.signal.aborted) report(error, run);
  } finally {
    if (running === controller) {
      running = null;
      setBusy(false);
    }
  }
}

function handle(run, event, data) {
  if (event === "start") {
    run.seed = data.seed;
    samples.replaceChildren();
    const { num_samples, prompt } = data.parameters;
    run.views = Array.from({ length: num_samples }, (_, i) => new SampleView(samples, prompt, `Sample ${i + 1}`));
    status.textContent = "Writing…";
    if (samples.getBoundingClientRect().top > 0.7 * window.innerHeight) actions.scrollIntoView();
  } else if (event === "text") {
    keepInView(() => run.views[data.sample].append(data.text));
    run.written += data.text.length;
  } else if (event === "end") {
    run.views[data.sample].end(data.finish_reason);
  } else if (event === "done") {
    run.done = true;
    const { first_character_seconds: first, characters_per_second: speed } = data.timing;
    const milliseconds = Math.round(first * 1000);
    status.textContent =
      `${count(run.written)}, ${Math.round(speed)} a second, the first after ${milliseconds} ms. Seed ${run.seed}.`;
  }
}

function report(error, run) {
  if (error.name === "AbortError") {
    status.textContent = run.seed === null ? "Stopped." : `Stopped after ${count(run.written)}. Seed ${run.seed}.`;
  } else if (error instanceof ProblemError) {
    status.textContent = "";
    showProblem(error.problem);
  } else {
    status.textContent = "";
    showMessage("The connection to the server was lost. What was written stays; press Write to try again.");
    console.error(error);
  }
  for (const view of run.views) if (!view.element.dataset.end) view.end("stopped");
}

function count(characters) {
  return `${characters.toLocaleString("en")} character${characters === 1 ? "" : "s"}`;
}

function stop() {
  running?.abort();
}

function setBusy(busy) {
  stopButton.disabled = !busy;
  samples.setAttribute("aria-busy", String(busy));
}

/** Lets the page follow the text, unless the reader has scrolled away from its end. */
function keepInView(change) {
  const root = document.documentElement;
  const atEnd = root.scrollHeight - root.clientHeight - root.scrollTop < 80;
  change();
  if (atEnd) root.scrollTop = root.scrollHeight;
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  write();
});
stopButton.addEventListener("click", stop);
document.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    write();
  } else if (event.key === "Escape") {
    stop();
  }
});
writeButton.disabled = false;
