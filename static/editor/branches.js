// The texts on the page: samples and forks, each a document with an editor of its own. They form a tree by where they
// left one another; one of them is active, and all can be shown side by side. Closing one keeps it.

import { Editor } from "./editor.js";
import { TextDocument } from "./document.js";
import { t } from "../ui/i18n.js";

export class Tree {
  #look;
  #onEdit;
  #closed = [];

  /**
   * `onChange()` is called when texts come, go or become active, `onClose(branch)` when one was taken off the page,
   * `onEdit(branch)` before an edit by hand (see Editor), `onText(branch)` after each change of a text.
   */
  constructor({ tabs, pages, look, onEdit, onText, onClose, onChange }) {
    Object.assign(this, { tabs, pages, onText, onClose, onChange });
    this.#look = look;
    this.#onEdit = onEdit;
    this.branches = [];
    this.active = null;
    this.sideBySide = false;
    tabs.addEventListener("keydown", (event) => this.#onKey(event));
  }

  /** Those closed too, in the order in which they were closed. */
  get closed() {
    return this.#closed.map(({ branch }) => branch);
  }

  get canReopen() {
    return this.#closed.length > 0;
  }

  /** Adds a text that left `parent` at the cell `at`, or a first one, and returns it. */
  add(cells, parent = null, at = 0, name = null) {
    const page = document.createElement("article");
    const root = page.appendChild(document.createElement("div"));
    const doc = new TextDocument(cells);
    const branch = { name: name ?? this.#nameUnder(parent), parent: parent?.name ?? null, at, doc, page };
    root.className = "document";
    Object.entries({ role: "textbox", "aria-multiline": "true", spellcheck: "false", autocapitalize: "off" }).forEach(
      ([key, value]) => root.setAttribute(key, value),
    );
    root.setAttribute("aria-label", t("text_named", { name: branch.name }));
    root.dataset.placeholder = t("placeholder");
    branch.editor = new Editor(root, doc, { look: (cell) => this.#look(cell), onEdit: () => this.#onEdit(branch) });
    doc.listen(() => this.onText(branch));
    root.addEventListener("focus", () => this.activate(branch));
    const after = this.branches.findLastIndex((one) => parent && isUnder(one.name, parent.name));
    this.branches.splice(after === -1 ? this.branches.length : after + 1, 0, branch);
    this.draw();
    return branch;
  }

  activate(branch) {
    if (this.active === branch) return;
    this.active = branch;
    this.draw();
  }

  /** The text `by` places further on becomes active. */
  walk(by) {
    const place = this.branches.indexOf(this.active) + by;
    this.activate(this.branches[(place + this.branches.length) % this.branches.length]);
  }

  /** Takes a text off the page; `reopen` brings it back. */
  close(branch) {
    if (this.branches.length === 1) return;
    const place = this.branches.indexOf(branch);
    this.branches.splice(place, 1);
    this.#closed.push({ branch, place });
    if (this.active === branch) this.active = this.branches[Math.max(0, place - 1)];
    this.onClose(branch);
    this.draw();
    if (!this.tabs.contains(document.activeElement)) this.active.editor.root.focus({ preventScroll: true });
  }

  reopen() {
    const { branch, place } = this.#closed.pop();
    this.branches.splice(place, 0, branch);
    this.active = branch;
    this.draw();
  }

  setSideBySide(on) {
    this.sideBySide = on;
    this.draw();
  }

  redraw(look) {
    this.#look = look;
    for (const branch of this.branches) branch.editor.lines.refresh();
  }

  draw() {
    this.active ??= this.branches[0];
    const shown = this.sideBySide ? this.branches : [this.active];
    const pages = shown.flatMap(({ page }, i) => (i ? [document.createElement("hr"), page] : [page]));
    const same = pages.length === this.pages.childElementCount && shown.every(({ page }) => page.isConnected);
    if (!same) this.pages.replaceChildren(...pages);
    this.pages.classList.toggle("many", shown.length > 1);
    for (const branch of this.branches) branch.page.classList.toggle("active", branch === this.active);
    this.#drawTabs();
    this.onChange();
  }

  #drawTabs() {
    const hadFocus = this.tabs.contains(document.activeElement);
    this.tabs.replaceChildren(...this.branches.map((branch) => this.#tab(branch)));
    this.tabs.hidden = this.branches.length < 2;
    if (hadFocus) this.tabs.querySelector("[aria-current]")?.focus();
  }

  #tab(branch) {
    const item = document.createElement("li");
    const open = item.appendChild(document.createElement("button"));
    open.type = "button";
    open.textContent = branch.name;
    open.title = branch.parent ? t("forked_from", { name: branch.parent, at: branch.at + 1 }) : "";
    open.setAttribute("aria-label", t("text_named", { name: branch.name }) + (open.title && `, ${open.title}`));
    open.addEventListener("click", () => this.activate(branch));
    const close = item.appendChild(document.createElement("button"));
    close.type = "button";
    close.textContent = "×";
    close.className = "close";
    close.setAttribute("aria-label", t("close_text", { name: branch.name }));
    close.addEventListener("click", () => this.close(branch));
    if (branch === this.active) open.setAttribute("aria-current", "true");
    else open.tabIndex = close.tabIndex = -1;
    return item;
  }

  #onKey(event) {
    const by = { ArrowLeft: -1, ArrowUp: -1, ArrowRight: 1, ArrowDown: 1 }[event.key];
    if (by) this.walk(by);
    else if (event.key === "Delete") this.close(this.active);
    else return;
    event.preventDefault();
  }

  /** 1, 2, 3 for texts of their own; 1.1, 1.2 for those that left 1. */
  #nameUnder(parent) {
    const all = [...this.branches, ...this.#closed.map(({ branch }) => branch)];
    const siblings = all.filter((one) => one.parent === (parent?.name ?? null));
    const next = 1 + Math.max(0, ...siblings.map(({ name }) => Number(name.split(".").at(-1))));
    return parent ? `${parent.name}.${next}` : String(next);
  }
}

function isUnder(name, ancestor) {
  return name === ancestor || name.startsWith(`${ancestor}.`);
}
