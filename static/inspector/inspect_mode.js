// Looking at characters: by hovering, by tapping, or by arrow keys in the looking mode, where the text cannot be edited
// and the keyboard's focus roves over its characters.

const REST = 120; // milliseconds that the mouse has to rest on a character
const AWAY = 250; // and may be away from it

export class Glass {
  #timer = 0;
  #at = null; // {branch, index} where the keyboard is
  on = false;

  /** `button` switches the looking mode. */
  constructor({ tree, inspector, button, pages }) {
    Object.assign(this, { tree, inspector, button });
    button.addEventListener("click", () => this.toggle());
    pages.addEventListener("pointermove", (event) => event.pointerType === "mouse" && this.#hover(event));
    pages.addEventListener("pointerleave", () => this.#leaveSoon());
    pages.addEventListener("click", (event) => this.on && this.#tap(event));
    pages.addEventListener("keydown", (event) => this.on && this.#onKey(event));
    inspector.element.addEventListener("pointerenter", () => clearTimeout(this.#timer));
    inspector.element.addEventListener("pointerleave", () => this.#leaveSoon());
    addEventListener("scroll", () => this.inspector.open && this.inspector.place(), { passive: true });
  }

  /** Into the looking mode, at the caret or the end of the text, or out of it. */
  toggle(on = !this.on) {
    const selected = this.tree.active.editor.selection();
    this.on = on;
    this.button.setAttribute("aria-pressed", String(on));
    this.update();
    if (on) this.#moveTo(this.tree.active, Math.min(selected?.start ?? Infinity, this.tree.active.doc.length - 1));
    else this.#out();
  }

  /** Makes all texts editable or not, as the mode has it. */
  update() {
    for (const { editor } of this.tree.branches) {
      editor.root.setAttribute("contenteditable", String(!this.on));
      editor.root.setAttribute("role", this.on ? "group" : "textbox");
      editor.root.toggleAttribute("aria-multiline", !this.on);
      if (!this.on) editor.root.setAttribute("aria-multiline", "true");
    }
  }

  /** A text was taken off the page: nothing in it can be looked at any more. */
  leave(branch) {
    if (this.inspector.at?.branch === branch) this.inspector.close();
    if (this.#at?.branch !== branch) return;
    this.#at = null;
    this.toggle(false);
  }

  /** The keyboard goes back to the character that is being looked at. */
  focus() {
    if (this.on && this.#at) this.#moveTo(this.#at.branch, this.#at.index);
    else this.tree.active.editor.root.focus();
  }

  #out() {
    const at = this.#at;
    this.#at = null;
    this.inspector.close();
    at?.branch.editor.lines.setCursor(-1);
    const { editor } = this.tree.active;
    editor.root.focus();
    if (at?.branch === this.tree.active) editor.setCaret(at.index);
  }

  #moveTo(branch, index) {
    if (index < 0) return;
    if (this.#at && this.#at.branch !== branch) this.#at.branch.editor.lines.setCursor(-1);
    this.#at = { branch, index };
    const element = branch.editor.lines.setCursor(index);
    element.tabIndex = 0;
    element.setAttribute("role", "button");
    element.setAttribute("aria-label", this.inspector.describe(branch.doc.cells[index]));
    element.focus();
    this.inspector.show(branch, index, true);
  }

  #onKey(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || !this.#at) return;
    const { branch, index } = this.#at;
    const last = branch.doc.length - 1;
    const to = { ArrowLeft: () => index - 1, ArrowRight: () => index + 1, ArrowUp: () => this.#inLine(-1) }[event.key];
    const more = { ArrowDown: () => this.#inLine(1), Home: () => this.#line().start, End: () => this.#line().end };
    const go = to ?? more[event.key];
    if (go) this.#moveTo(branch, Math.max(0, Math.min(last, go())));
    else if (event.key === "Enter" || event.key === " ") this.inspector.focus();
    else return;
    event.preventDefault();
  }

  #line() {
    return this.#at.branch.editor.lines.lineAround(this.#at.index);
  }

  /** The same place in the line above or below. */
  #inLine(by) {
    const { branch, index } = this.#at;
    const { start, end } = this.#line();
    const other = branch.editor.lines.lineAround(by < 0 ? Math.max(0, start - 1) : Math.min(branch.doc.length, end + 1));
    return Math.min(other.start + index - start, other.end);
  }

  #tap(event) {
    const found = this.#find(event);
    if (found) this.#moveTo(found.branch, found.index);
  }

  #hover(event) {
    clearTimeout(this.#timer);
    if (event.buttons || (this.inspector.at?.pinned && this.on)) return;
    const { clientX, clientY, target } = event;
    this.#timer = setTimeout(() => {
      const found = this.#find({ clientX, clientY, target });
      if (found) this.inspector.show(found.branch, found.index, false);
      else if (this.inspector.open) this.inspector.close();
    }, REST);
  }

  #leaveSoon() {
    clearTimeout(this.#timer);
    if (this.inspector.open && !this.inspector.at.pinned) {
      this.#timer = setTimeout(() => this.inspector.close(), AWAY);
    }
  }

  #find({ clientX, clientY, target }) {
    const branch = this.tree.branches.find(({ page }) => page.contains(target));
    const index = branch?.editor.lines.cellAt(clientX, clientY) ?? null;
    return index === null ? null : { branch, index };
  }
}
