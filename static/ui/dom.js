// Elements of the page: found, typed, and made.

/** The element with an id. @type {<Id extends keyof PageElements>(id: Id) => PageElements[Id]} */
export const $ = (id) => /** @type {any} */ (document.getElementById(id));

/** Where on the screen the text ends, as the settings stand over what is below. */
export function viewBottom() {
	return Math.min(innerHeight, $("form").getBoundingClientRect().top);
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

/** @type {MakeElement} */
export function make(name, className = "", text = "") {
	const element = document.createElement(name);
	if (className) element.className = className;
	element.textContent = text;
	return element;
}
