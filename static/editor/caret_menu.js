// The menu of a place in a text: what can be done there. The browser's own menu comes with Shift, and where text is
// selected.

import { find, make, makeButton } from "../ui/dom.js";
import { t } from "../ui/i18n.js";

/** @type {Record<string, (index: number, count: number) => number>} */
const KEYS = {
	ArrowDown: (index) => index + 1,
	ArrowUp: (index) => index - 1,
	Home: () => 0,
	End: (_, count) => count - 1,
};

export class CaretMenu {
	#element = make("div", "menu");
	#items;
	/** Where the keyboard's focus goes back to. @type {HTMLElement | null} */
	#root = null;

	/** @param {{ onWrite: () => void, onLook: () => void }} options */
	constructor({ onWrite, onLook }) {
		const menu = make("div");
		menu.setAttribute("role", "menu");
		menu.setAttribute("aria-label", t("menu"));
		this.#element.hidden = true;
		this.#items = [this.#item("menu_write", "Ctrl+Shift+Enter", onWrite), this.#item("menu_look", "Alt+L", onLook)];
		menu.append(...this.#items);
		this.#element.append(menu, make("p", "hint", t("menu_hint")));
		this.#element.addEventListener("keydown", (event) => this.#onKey(event));
		this.#element.addEventListener("focusout", (event) => {
			if (!this.#element.contains(/** @type {Node | null} */ (event.relatedTarget))) this.#element.hidden = true;
		});
		find(document, "main").append(this.#element);
	}

	/**
	 * Opens at a point of the window, for the caret of a text.
	 * @param {number} x @param {number} y @param {HTMLElement} root
	 */
	open(x, y, root) {
		this.#root = root;
		this.#element.hidden = false;
		const { offsetWidth, offsetHeight, style } = this.#element;
		style.left = `${Math.max(0, Math.min(x, innerWidth - offsetWidth))}px`;
		style.top = `${Math.max(0, Math.min(y, innerHeight - offsetHeight))}px`;
		this.#items[0].focus();
	}

	/** @param {string} key @param {string} keys @param {() => void} action */
	#item(key, keys, action) {
		const item = makeButton("item", t(key), () => {
			this.#close();
			action();
		});
		item.setAttribute("role", "menuitem");
		item.setAttribute("aria-keyshortcuts", keys.replace("Ctrl", "Control"));
		item.tabIndex = -1;
		const shortcut = item.appendChild(make("kbd", "", keys));
		shortcut.setAttribute("aria-hidden", "true");
		return item;
	}

	#close() {
		this.#element.hidden = true;
		this.#root?.focus();
	}

	/** @param {KeyboardEvent} event */
	#onKey(event) {
		const at = this.#items.findIndex((item) => item === document.activeElement);
		const to = KEYS[event.key]?.(at, this.#items.length);
		if (to !== undefined) this.#items.at(to % this.#items.length)?.focus();
		else if (event.key === "Escape" || event.key === "Tab") this.#close();
		else return;
		event.preventDefault();
		event.stopPropagation(); // Escape would stop the model, too
	}
}
