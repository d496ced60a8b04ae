// How the page is looked at (colours, open panels, settings), kept so that a reload does not change it: in the tab's
// storage, which a switch of the language keeps, and in its history, which no browser forbids and nothing fills.

const STORAGE_KEY = "soliloquy-view";

/** @param {Omit<View, "time">} view */
export function saveView(view) {
	const kept = { ...view, time: Date.now() };
	try {
		history.replaceState({ ...history.state, view: kept }, "");
	} catch {
		// a browser may refuse after too many changes
	}
	try {
		sessionStorage.setItem(STORAGE_KEY, JSON.stringify(kept));
	} catch {
		// full or forbidden
	}
}

/** The view that was saved last; one with a time alone if none was. @returns {View} */
export function loadView() {
	const inHistory = history.state?.view ?? { time: 0 };
	const inStorage = stored() ?? { time: 0 };
	return inHistory.time >= inStorage.time ? inHistory : inStorage;
}

/** @returns {View | null} */
function stored() {
	try {
		return JSON.parse(sessionStorage.getItem(STORAGE_KEY) ?? "null");
	} catch {
		return null;
	}
}
