// The lens: tabs beside the text, each with a panel that says something of it; on narrow screens a sheet at the bottom.
// Knows nothing of what the panels show.

import { $, find, sheet } from "./dom.js";

/** @type {Record<string, number>} */
const ARROWS = { ArrowLeft: -1, ArrowRight: 1 };

export class Lens {
	#element = $("lens");
	#tabs = /** @type {HTMLButtonElement[]} */ ([...$("lens").querySelectorAll("[role=tab]")]);
	/** @type {((name: string) => void)[]} */
	#listeners = [];
	/** The name of the panel that is shown; "" when the sheet is closed. */
	active = "";

	constructor() {
		for (const tab of this.#tabs) tab.addEventListener("click", () => this.#toggle(nameOf(tab)));
		find(this.#element, "[role=tablist]").addEventListener("keydown", (event) => this.#onKey(event));
		$("lens-close").addEventListener("click", () => this.close());
		sheet.addEventListener("change", () => {
			this.show(sheet.matches ? "" : "letter");
		});
	}

	/** Calls `listener` with the name of each panel that is shown. @param {(name: string) => void} listener */
	listen(listener) {
		this.#listeners.push(listener);
	}

	/** Whether there is a panel of this name. @param {string} name */
	has(name) {
		return this.#tabs.some((tab) => nameOf(tab) === name);
	}

	/** Shows a panel, "" for none. @param {string} name */
	show(name) {
		if (name && name === this.active) return;
		this.active = name;
		for (const tab of this.#tabs) {
			const selected = nameOf(tab) === name;
			tab.setAttribute("aria-selected", String(selected));
			tab.tabIndex = selected ? 0 : -1;
			panelOf(tab).hidden = !selected;
		}
		if (!name) this.#tabs[0].tabIndex = 0;
		this.#element.classList.toggle("closed", !name);
		document.body.classList.toggle("growing", name === "growth"); // which needs the room of the text
		for (const listener of this.#listeners) listener(name);
	}

	/** Closes the sheet; beside the text, a panel is always open. */
	close() {
		const tab = this.#tabs.find((one) => nameOf(one) === this.active);
		this.show(sheet.matches ? "" : "letter");
		if (this.#element.contains(document.activeElement) || document.activeElement === document.body) tab?.focus();
	}

	/** A tab closes its sheet when it is pressed again. @param {string} name */
	#toggle(name) {
		if (sheet.matches && name === this.active) this.close();
		else this.show(name);
	}

	/** @param {KeyboardEvent} event */
	#onKey(event) {
		const at = this.#tabs.findIndex((tab) => tab === document.activeElement);
		const by = ARROWS[event.key];
		let to = at + by;
		if (event.key === "Home") to = 0;
		else if (event.key === "End") to = this.#tabs.length - 1;
		else if (!by) return;
		event.preventDefault();
		const tab = this.#tabs[(to + this.#tabs.length) % this.#tabs.length];
		this.show(nameOf(tab));
		tab.focus();
	}
}

/** @param {HTMLElement} tab */
function nameOf(tab) {
	return tab.getAttribute("aria-controls") ?? "";
}

/** @param {HTMLElement} tab */
function panelOf(tab) {
	return /** @type {HTMLElement} */ (document.getElementById(nameOf(tab)));
}
