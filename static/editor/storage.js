// What the page shows, kept in the browser's tab so that a reload loses nothing.

import { typed } from "./document.js";

const KEY = "soliloquy-2"; // a number for what is stored under it

/**
 * Saves all texts, those closed too, with what is known of each character; where the browser has no room for that, the
 * texts alone. Returns which: "all", "texts", or "nothing" when it has no room for them either, or refuses.
 */
export function save(tree) {
  const all = [...tree.branches, ...tree.closed];
  const rest = { active: tree.active.name, sideBySide: tree.sideBySide };
  const closed = tree.closed.map(({ name }) => name);
  const texts = all.map(({ name, parent, at, doc }) => ({ name, parent, at, cells: doc.cells.map(({ c }) => c) }));
  if (put({ ...rest, closed, ...withRuns(all) })) return "all";
  if (put({ ...rest, closed, branches: texts, runs: [], requests: [] })) return "texts";
  put(null);
  return "nothing";
}

function put(content) {
  try {
    if (content === null) sessionStorage.removeItem(KEY);
    else sessionStorage.setItem(KEY, JSON.stringify(content));
    return content !== null;
  } catch {
    return false; // full or forbidden
  }
}

/** Texts as numbers of runs and places in them, and the runs and requests by number. */
function withRuns(all) {
  const requests = new Map();
  const runs = new Map();
  const numberOf = (map, item) => map.get(item) ?? map.set(item, map.size).get(item);
  const branches = all.map(({ name, parent, at, doc }) => {
    const cells = doc.cells.map((cell) => (cell.run ? [numberOf(runs, cell.run), cell.at] : cell.c));
    return { name, parent, at, cells };
  });
  for (const { request } of [...runs.keys()]) for (const run of request.runs) numberOf(runs, run);
  const packed = [...runs.keys()].map(({ request, cells, prefix, ...run }) => ({
    ...run,
    request: numberOf(requests, request),
    text: cells.map(({ c }) => c),
    prob: cells.map(({ prob }) => prob),
    rank: cells.map(({ rank }) => rank),
    entropy: cells.map(({ entropy }) => entropy),
  }));
  const kept = [...requests.keys()].map((request) => ({ ...request, runs: undefined, reports: null }));
  return { branches, runs: packed, requests: kept };
}

/**
 * What was saved, {active, sideBySide, closed, branches: [{name, parent, at, cells}]}, or null. What another
 * checkpoint wrote is as if typed: this one knows nothing of it.
 */
export function load(checkpoint) {
  try {
    const content = JSON.parse(sessionStorage.getItem(KEY));
    if (!content?.branches.length) return null;
    const requests = content.requests.map((request) => ({ ...request, runs: [] }));
    const runs = content.runs.map(({ request, text, prob, rank, entropy, ...rest }) => {
      const run = { ...rest, request: requests[request], prefix: requests[request].prefix, cells: [] };
      run.cells = text.map((c, at) => Object.freeze({ c, run, at, prob: prob[at], rank: rank[at], entropy: entropy[at] }));
      run.request.runs[run.sample] = run;
      return run;
    });
    const known = (cell) => (cell.run.request.checkpoint === checkpoint ? cell : typed(cell.c)[0]);
    const branches = content.branches.map(({ cells, ...branch }) => ({
      ...branch,
      cells: cells.map((cell) => (typeof cell === "string" ? typed(cell)[0] : known(runs[cell[0]].cells[cell[1]]))),
    }));
    return { ...content, branches };
  } catch {
    return null;
  }
}
