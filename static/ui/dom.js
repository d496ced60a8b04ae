// Elements of the page: found, typed, and made.

/** The element with an id. @type {<Id extends keyof PageElements>(id: Id) => PageElements[Id]} */
export const $ = (id) => /** @type {any} */ (document.getElementById(id));

/** Whether the lens is a sheet at the bottom of the window, for want of room beside the text. */
export const sheet = matchMedia("(max-width: 59.99rem)");

/** Whether the window is as narrow as a phone's. */
export const phone = matchMedia("(max-width: 40rem)");

/** Where on the screen the text ends, as the settings and perhaps the lens stand over what is below. */
export function viewBottom() {
	const over = sheet.matches ? $("lens") : $("form");
	return Math.min(innerHeight, over.getBoundingClientRect().top);
}

/** @type {FindElement} */
export const find = (/** @type {ParentNode} */ root, /** @type {string} */ selector) =>
	/** @type {any} */ (root.querySelector(selector));

/** A button that does `action`. @param {string} className @param {string} text @param {() => void} action */
export function makeButton(className, text, action) {
	const button = make("button", className, text);
	button.type = "button";
	button.addEventListener("click", action);
	return button;
}

/** A word with a sentence that explains it, for those who point at it or come to it by keyboard. @param {string} word @param {string} sentence */
export function makeTerm(word, sentence) {
	const term = make("span", "term", word);
	term.tabIndex = 0;
	term.append(make("span", "tip", sentence));
	return term;
}

/** @type {MakeElement} */
export function make(name, className = "", text = "") {
	const element = document.createElement(name);
	if (className) element.className = className;
	element.textContent = text;
	return element;
}
