// The texts on the page: samples and forks, each a document with an editor of its own. They form a tree by where they
// left one another; one of them is active, and all can be shown side by side. Closing one keeps it.

import { find, make, makeButton } from "../ui/dom.js";
import { t } from "../ui/i18n.js";
import { TextDocument } from "./document.js";
import { Editor } from "./editor.js";

const TEXT_BOX = { role: "textbox", "aria-multiline": "true", spellcheck: "false", autocapitalize: "off" };
/** @type {Record<string, number>} */
const ARROWS = { ArrowLeft: -1, ArrowUp: -1, ArrowRight: 1, ArrowDown: 1 };

export class BranchTree {
	#options;
	/** @type {{ branch: Branch, index: number }[]} */
	#closed = [];
	/** @type {Branch[]} */
	branches = [];
	/** Undefined only until the first text is added. @type {Branch} */
	active = /** @type {any} */ (undefined);
	sideBySide = false;

	/** @param {BranchTreeOptions} options */
	constructor(options) {
		this.#options = options;
		options.tabs.addEventListener("keydown", (event) => this.#onKey(event));
	}

	/** The closed texts, in the order in which they were closed. */
	get closed() {
		return this.#closed.map(({ branch }) => branch);
	}

	get canReopen() {
		return this.#closed.length > 0;
	}

	/**
	 * Adds a text that left `parent` at the cell `at`, or one with no parent, and returns it.
	 * @param {Cell[]} cells @param {{ name: string } | null} parent @param {string | null} name @returns {Branch}
	 */
	add(cells, parent = null, at = 0, name = null) {
		const { windowSize, onEdit, onText, onContinue } = this.#options;
		const page = make("article");
		const head = page.appendChild(make("div", "pane"));
		const root = page.appendChild(make("div", "document"));
		root.dataset.window = t("window");
		const doc = new TextDocument(cells, windowSize);
		const editor = new Editor(root, doc, {
			classify: (cell) => this.#options.classify(cell),
			onEdit: () => onEdit(branch),
		});
		/** @type {Branch} */
		const branch = { name: name ?? this.#nameUnder(parent), parent: parent?.name ?? null, at, doc, page, editor };
		const go = makeButton("quiet", t("continue"), () => onContinue(branch));
		go.setAttribute("aria-label", t("continue_one", { name: branch.name }));
		head.append(make("b", "", t("text_named", { name: branch.name })), make("span", "", originOf(branch)), go);
		for (const [key, value] of Object.entries(TEXT_BOX)) root.setAttribute(key, value);
		root.setAttribute("aria-label", t("text_named", { name: branch.name }));
		root.dataset.placeholder = t("placeholder");
		doc.listen((change) => onText(branch, change));
		root.addEventListener("focus", () => this.activate(branch));
		const before = this.branches.findLastIndex((other) => parent && isUnder(other.name, parent.name));
		this.branches.splice(before === -1 ? this.branches.length : before + 1, 0, branch);
		this.draw();
		return branch;
	}

	/** @param {Branch} branch */
	activate(branch) {
		if (this.active === branch) return;
		this.active = branch;
		this.draw();
	}

	/** Activates the text `by` tabs further on. @param {number} by */
	activateNext(by) {
		const index = this.branches.indexOf(this.active) + by;
		this.activate(this.branches[(index + this.branches.length) % this.branches.length]);
	}

	/** Takes a text off the page; `reopen` brings it back. @param {Branch} branch */
	close(branch) {
		if (this.branches.length === 1) return;
		const index = this.branches.indexOf(branch);
		this.branches.splice(index, 1);
		this.#closed.push({ branch, index });
		if (this.active === branch) this.active = this.branches[Math.max(0, index - 1)];
		this.#options.onClose(branch);
		this.draw();
		const { tabs } = this.#options;
		if (!tabs.contains(document.activeElement)) this.active.editor.root.focus({ preventScroll: true });
	}

	reopen() {
		const last = this.#closed.pop();
		if (!last) return;
		this.branches.splice(last.index, 0, last.branch);
		this.active = last.branch;
		this.draw();
	}

	/** @param {boolean} on */
	setSideBySide(on) {
		this.sideBySide = on;
		this.draw();
	}

	/** Draws all texts with other class names. @param {Classify} classify */
	redraw(classify) {
		this.#options.classify = classify;
		for (const branch of this.branches) branch.editor.lines.refresh();
	}

	/** The texts that are on the screen. */
	get shown() {
		return this.sideBySide ? this.branches : [this.active];
	}

	draw() {
		const { pages, onChange } = this.#options;
		this.active ??= this.branches[0];
		const { shown } = this;
		const children = shown.flatMap(({ page }, i) => (i ? [document.createElement("hr"), page] : [page]));
		const same = children.length === pages.childElementCount && shown.every(({ page }) => page.isConnected);
		if (!same) pages.replaceChildren(...children);
		pages.classList.toggle("many", shown.length > 1);
		for (const branch of this.branches) branch.page.classList.toggle("active", branch === this.active);
		this.#drawTabs();
		onChange();
	}

	#drawTabs() {
		const { tabs } = this.#options;
		const hadFocus = tabs.contains(document.activeElement);
		tabs.replaceChildren(...this.branches.map((branch) => this.#makeTab(branch)));
		tabs.hidden = this.branches.length < 2;
		if (hadFocus) find(tabs, "[aria-current]")?.focus();
	}

	/** @param {Branch} branch */
	#makeTab(branch) {
		const item = make("li");
		const open = item.appendChild(makeButton("", branch.name, () => this.activate(branch)));
		open.title = originOf(branch);
		open.setAttribute("aria-label", t("text_named", { name: branch.name }) + (open.title && `, ${open.title}`));
		const close = item.appendChild(makeButton("close", "×", () => this.close(branch)));
		close.setAttribute("aria-label", t("close_text", { name: branch.name }));
		if (branch === this.active) open.setAttribute("aria-current", "true");
		else for (const button of [open, close]) button.tabIndex = -1;
		return item;
	}

	/** @param {KeyboardEvent} event */
	#onKey(event) {
		const by = ARROWS[event.key];
		if (by) this.activateNext(by);
		else if (event.key === "Delete") this.close(this.active);
		else return;
		event.preventDefault();
	}

	/**
	 * The next free name: 1, 2, 3 for texts with no parent; 1.1, 1.2 for those that left 1.
	 * @param {{ name: string } | null} parent
	 */
	#nameUnder(parent) {
		const siblings = [...this.branches, ...this.closed].filter((one) => one.parent === (parent?.name ?? null));
		const next = 1 + Math.max(0, ...siblings.map(({ name }) => Number(name.split(".").at(-1))));
		return parent ? `${parent.name}.${next}` : String(next);
	}
}

/** Where a text left another, in words. @param {Branch} branch */
function originOf({ parent, at }) {
	return parent ? t("forked_from", { name: parent, at: at + 1 }) : "";
}

/** @param {string} name @param {string} ancestor */
function isUnder(name, ancestor) {
	return name === ancestor || name.startsWith(`${ancestor}.`);
}
