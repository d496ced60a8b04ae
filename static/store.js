// What the page shows, kept in the browser's tab so that a reload loses nothing.

import { typed } from "./document.js";

const KEY = "soliloquy";

/** Saves all texts with what is known of each character. Silent when the browser has no room or refuses. */
export function save(tree, settings) {
  const requests = [];
  const runs = [];
  const numberOf = (list, item) => (list.includes(item) ? list.indexOf(item) : list.push(item) - 1);
  const branches = tree.branches.map(({ name, parent, at, doc }) => {
    const cells = doc.cells.map((cell) => (cell.run ? [numberOf(runs, cell.run), cell.at] : cell.c));
    return { name, parent, at, cells };
  });
  for (const { request } of [...runs]) for (const run of request.runs) numberOf(runs, run);
  const packed = runs.map(({ request, cells, ...run }) => ({
    ...run,
    request: numberOf(requests, request),
    text: cells.map(({ c }) => c),
    prob: cells.map(({ prob }) => prob),
    rank: cells.map(({ rank }) => rank),
    entropy: cells.map(({ entropy }) => entropy),
  }));
  const kept = requests.map((request) => ({ ...request, runs: undefined, reports: null }));
  const content = { settings, active: tree.active.name, sideBySide: tree.sideBySide, branches, runs: packed, requests: kept };
  try {
    sessionStorage.setItem(KEY, JSON.stringify(content));
  } catch {
    // full or forbidden: the page works without it
  }
}

/** What was saved for this checkpoint, {settings, active, sideBySide, branches: [{name, parent, at, cells}]}, or null. */
export function load(checkpoint) {
  try {
    const content = JSON.parse(sessionStorage.getItem(KEY));
    if (!content?.branches.length || content.requests.some((request) => request.checkpoint !== checkpoint)) return null;
    const requests = content.requests.map((request) => ({ ...request, runs: [] }));
    const runs = content.runs.map(({ request, text, prob, rank, entropy, ...rest }) => {
      const run = { ...rest, request: requests[request], cells: [] };
      run.cells = text.map((c, at) => Object.freeze({ c, run, at, prob: prob[at], rank: rank[at], entropy: entropy[at] }));
      run.request.runs[run.sample] = run;
      return run;
    });
    const branches = content.branches.map(({ cells, ...branch }) => ({
      ...branch,
      cells: cells.map((cell) => (typeof cell === "string" ? typed(cell)[0] : runs[cell[0]].cells[cell[1]])),
    }));
    return { ...content, branches };
  } catch {
    return null;
  }
}
