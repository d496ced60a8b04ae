// The dialog that shares a text: link, copy, download.

import { textOf } from "../editor/document.js";
import { requestOf } from "../session.js";
import { LONGEST, download, toFragment, toJson, toText } from "../editor/share_format.js";
import { t } from "../ui/i18n.js";

export class ShareDialog {
  constructor(dialog, { tree, session }) {
    Object.assign(this, { dialog, tree, session });
    const on = (name, action) => dialog.querySelector(`[name=${name}]`).addEventListener("click", action);
    on("copy-link", () => this.#copy(this.link.value, this.link));
    on("copy-text", () => this.#copy(this.tree.active.doc.text));
    on("save-text", () => download("soliloquy.txt", "text/plain", toText(this.tree.branches)));
    on("save-json", () => {
      const { active } = this.tree;
      download("soliloquy.json", "application/json", toJson(active, requestOf(active)));
    });
  }

  get link() {
    return this.dialog.querySelector("[name=link]");
  }

  async open() {
    this.session.showAll(); // the text is then all that the link holds, while it is being written too
    const request = requestOf(this.tree.active);
    const message = request ? this.#differs(request) : t("share_nothing");
    const fragment = request ? await toFragment(request) : "";
    const fits = request !== null && fragment.length <= LONGEST;
    const { origin, pathname } = location;
    this.link.value = fits ? `${origin}${pathname}#${fragment}` : "";
    this.dialog.querySelector("[name=copy-link]").disabled = !fits;
    this.#tell(request && !fits ? t("share_too_long") : message);
    this.dialog.showModal();
    this.link.select();
  }

  /** What the link does not hold: edits after the model wrote, or what it is about to write. */
  #differs({ prefix, runs }) {
    const { active } = this.tree;
    const { text } = active.doc;
    if (!runs.some(({ cells }) => text === prefix + textOf(cells))) return t("share_edited");
    return this.session.isWriting(active) ? t("share_writing") : "";
  }

  async #copy(text, input = null) {
    try {
      await navigator.clipboard.writeText(text); // only where the page came over https or from this machine
    } catch {
      const field = input ?? this.#fieldWith(text);
      field.select();
      const done = document.execCommand("copy");
      if (!input) field.remove();
      if (!done) {
        this.#tell(t("copy_failed"));
        return;
      }
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
