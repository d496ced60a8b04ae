// The dialog that shares a text: link, copy, download.

import { textOf } from "./document.js";
import { download, toFragment, toJson, toText } from "./share.js";
import { t } from "./texts.js";

export class ShareDialog {
  /** `requestOf(branch)` is the request that wrote the end of a text, or null. */
  constructor(dialog, { tree, requestOf }) {
    Object.assign(this, { dialog, tree, requestOf });
    const on = (name, action) => dialog.querySelector(`[name=${name}]`).addEventListener("click", action);
    on("copy-link", () => this.#copy(this.link.value, this.link));
    on("copy-text", () => this.#copy(this.tree.active.doc.text));
    on("save-text", () => download("soliloquy.txt", "text/plain", toText(this.tree.branches)));
    on("save-json", () => {
      const { active } = this.tree;
      download("soliloquy.json", "application/json", toJson(active, this.requestOf(active)));
    });
  }

  get link() {
    return this.dialog.querySelector("[name=link]");
  }

  async open() {
    const request = this.requestOf(this.tree.active);
    const { origin, pathname } = location;
    this.link.value = request ? `${origin}${pathname}#${await toFragment(request)}` : "";
    this.dialog.querySelector("[name=copy-link]").disabled = !request;
    this.#tell(request ? this.#differs(request) : t("share_nothing"));
    this.dialog.showModal();
    this.link.select();
  }

  /** What the link does not hold: edits after the model wrote. */
  #differs({ prefix, runs }) {
    const { text } = this.tree.active.doc;
    return runs.some(({ cells }) => text === prefix + textOf(cells)) ? "" : t("share_edited");
  }

  async #copy(text, input = null) {
    try {
      await navigator.clipboard.writeText(text); // only where the page came over https or from this machine
    } catch {
      const field = input ?? this.#fieldWith(text);
      field.select();
      const done = document.execCommand("copy");
      if (!input) field.remove();
      if (!done) return;
    }
    this.#tell(t("copied"));
  }

  #fieldWith(text) {
    const field = this.dialog.appendChild(document.createElement("textarea"));
    field.value = text;
    return field;
  }

  #tell(message) {
    this.dialog.querySelector("[role=status]").textContent = message;
  }
}
