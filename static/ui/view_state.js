// How the page is looked at (colours, open panels, settings), kept so that a reload does not change it: in the tab's
// storage, which goes along to the other language, and in its history, which no browser forbids and nothing fills.

const KEY = "soliloquy-view";

/** Keeps `view`, an object of plain values. */
export function remember(view) {
  const kept = { ...view, time: Date.now() };
  try {
    history.replaceState({ ...history.state, view: kept }, "");
  } catch {
    // a browser may find that there were too many changes of late
  }
  try {
    sessionStorage.setItem(KEY, JSON.stringify(kept));
  } catch {
    // full or forbidden
  }
}

/** What was kept last; an empty object if nothing was. */
export function recall() {
  const [inHistory, inStorage] = [history.state?.view ?? { time: 0 }, stored() ?? { time: 0 }];
  return inHistory.time >= inStorage.time ? inHistory : inStorage;
}

function stored() {
  try {
    return JSON.parse(sessionStorage.getItem(KEY));
  } catch {
    return null;
  }
}
