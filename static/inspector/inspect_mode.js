// Inspecting characters: by hovering, by tapping, or by arrow keys in the inspect mode, where the text cannot be edited
// and the keyboard's focus roves over its characters.

import { sheet } from "../ui/dom.js";
import { cellAt } from "./pointed_cell.js";

const HOVER_DELAY = 400; // milliseconds that the mouse has to rest on a character

export class InspectMode {
	#tree;
	#inspector;
	#button;
	#timer = 0;
	#mayHover;
	/** Where the keyboard is. @type {{ branch: Branch, index: number } | null} */
	#at = null;
	on = false;

	/** @param {InspectModeOptions} options */
	constructor({ tree, inspector, button, pages, mayHover }) {
		this.#mayHover = mayHover;
		this.#tree = tree;
		this.#inspector = inspector;
		this.#button = button;
		pages.addEventListener("pointermove", (event) => this.point(event));
		pages.addEventListener("pointerleave", () => clearTimeout(this.#timer));
		pages.addEventListener("click", (event) => this.point(event));
		pages.addEventListener("keydown", (event) => {
			if (this.on) this.#onKey(event);
		});
	}

	/** A pointer moves or clicks in a text. @param {PointerEvent} event */
	point(event) {
		if (event.type === "click") {
			if (this.on) this.#tap(event);
			else if (!sheet.matches) this.#click(event);
		} else if (event.pointerType === "mouse") this.#hover(event);
	}

	/** Switches the mode on, at the caret or the end of the text, or off. */
	toggle(on = !this.on) {
		const { active } = this.#tree;
		const selected = active.editor.selection();
		this.on = on;
		this.#button.setAttribute("aria-pressed", String(on));
		this.update();
		if (on) this.#moveTo(active, Math.min(selected?.start ?? Infinity, active.doc.length - 1));
		else this.#leaveMode();
	}

	/** Makes all texts editable or not, as the mode requires. */
	update() {
		for (const { editor } of this.#tree.branches) {
			editor.root.setAttribute("contenteditable", String(!this.on));
			editor.root.setAttribute("role", this.on ? "group" : "textbox");
			if (this.on) editor.root.removeAttribute("aria-multiline");
			else editor.root.setAttribute("aria-multiline", "true");
		}
	}

	/** A text was taken off the page: nothing in it can be inspected any more. @param {Branch} branch */
	leave(branch) {
		if (this.#inspector.at?.branch === branch) this.#inspector.close();
		if (this.#at?.branch !== branch) return;
		this.#at = null;
		this.toggle(false);
	}

	/** The keyboard's focus goes back to the character that is inspected. */
	focus() {
		if (this.on && this.#at) this.#moveTo(this.#at.branch, this.#at.index);
		else this.#tree.active.editor.root.focus();
	}

	#leaveMode() {
		const at = this.#at;
		this.#at = null;
		this.#inspector.close();
		at?.branch.editor.lines.setCursor(-1);
		const { active } = this.#tree;
		active.editor.root.focus();
		if (at?.branch === active) active.editor.setCaret(at.index);
	}

	/** @param {Branch} branch @param {number} index */
	#moveTo(branch, index) {
		if (index < 0) return;
		if (this.#at && this.#at.branch !== branch) this.#at.branch.editor.lines.setCursor(-1);
		this.#at = { branch, index };
		const element = branch.editor.lines.setCursor(index);
		element.tabIndex = 0;
		element.setAttribute("role", "button");
		element.setAttribute("aria-label", this.#inspector.describe(branch.doc.cells[index]));
		this.#inspector.show(branch, index, true); // which makes room for the text, if it had to give it up
		element.focus();
	}

	/** @param {KeyboardEvent} event */
	#onKey(event) {
		if (event.ctrlKey || event.metaKey || event.altKey || !this.#at) return;
		const { branch, index } = this.#at;
		const to = indexAfter(event.key, branch, index);
		if (to !== null) this.#moveTo(branch, Math.max(0, Math.min(branch.doc.length - 1, to)));
		else if (event.key === "Enter" || event.key === " ") this.#inspector.focus();
		else return;
		event.preventDefault();
	}

	/** @param {MouseEvent} event */
	#tap(event) {
		const found = this.#cellUnder(event);
		if (found) this.#moveTo(found.branch, found.index);
	}

	/** @param {PointerEvent} event */
	#hover(event) {
		clearTimeout(this.#timer);
		const inspector = this.#inspector;
		if (event.buttons || !this.#mayHover() || (inspector.at?.pinned && this.on)) return;
		const { clientX, clientY, target } = event;
		this.#timer = setTimeout(() => {
			const found = this.#cellUnder({ clientX, clientY, target });
			if (found) inspector.show(found.branch, found.index, false);
		}, HOVER_DELAY);
	}

	/** A click into the text, which sets the caret, shows the character that the model wrote there too. @param {MouseEvent} event */
	#click(event) {
		if (!getSelection().isCollapsed) return;
		const found = this.#cellUnder(event);
		if (found?.branch.doc.cells[found.index].run) this.#inspector.show(found.branch, found.index, true);
	}

	/** The cell under the pointer, or null. @param {Pick<MouseEvent, "clientX" | "clientY" | "target">} event */
	#cellUnder({ clientX, clientY, target }) {
		const branch = this.#tree.branches.find(({ page }) => page.contains(/** @type {Node | null} */ (target)));
		const index = branch ? cellAt(branch.editor.lines, clientX, clientY) : null;
		return branch && index !== null ? { branch, index } : null;
	}
}

/**
 * Where a key leads from the cell `index`, or null if it does not move; the result may lie outside of the text.
 * @param {string} key @param {Branch} branch @param {number} index
 */
function indexAfter(key, { editor: { lines } }, index) {
	const { start, end } = lines.lineAround(index);
	switch (key) {
		case "ArrowLeft":
			return index - 1;
		case "ArrowRight":
			return index + 1;
		case "ArrowUp":
			return sameColumn(lines.lineAround(Math.max(0, start - 1)));
		case "ArrowDown":
			return sameColumn(lines.lineAround(Math.min(lines.doc.length, end + 1)));
		case "Home":
			return start;
		case "End":
			return end;
		default:
			return null;
	}

	/** @param {Span} line */
	function sameColumn(line) {
		return Math.min(line.start + index - start, line.end);
	}
}
