// The dialog that shares a text: link, copy, download.

import { textOf } from "../editor/document.js";
import { MAX_FRAGMENT, download, toFragment, toJson, toText } from "../editor/share_format.js";
import { requestOf } from "../session.js";
import { find } from "../ui/dom.js";
import { t } from "../ui/i18n.js";

export class ShareDialog {
	#dialog;
	#tree;
	#session;
	#link;

	/** @param {HTMLDialogElement} dialog @param {{ tree: BranchTree, session: Session }} options */
	constructor(dialog, { tree, session }) {
		this.#dialog = dialog;
		this.#tree = tree;
		this.#session = session;
		this.#link = find(dialog, "input");
		this.#onClick("copy-link", () => this.#copy(this.#link.value, this.#link));
		this.#onClick("copy-text", () => this.#copy(tree.active.doc.text));
		this.#onClick("save-text", () => download("soliloquy.txt", "text/plain", toText(tree.branches)));
		this.#onClick("save-json", () => {
			const content = toJson(tree.active, requestOf(tree.active));
			download("soliloquy.json", "application/json", content);
		});
	}

	async open() {
		this.#session.showAll(); // the text is then all that the link holds, while it is being written too
		const request = requestOf(this.#tree.active);
		const message = request ? this.#missing(request) : t("share_nothing");
		const fragment = request ? await toFragment(request) : "";
		const fits = request !== null && fragment.length <= MAX_FRAGMENT;
		const { origin, pathname } = location;
		this.#link.value = fits ? `${origin}${pathname}#${fragment}` : "";
		this.#button("copy-link").disabled = !fits;
		this.#show(request && !fits ? t("share_too_long") : message);
		this.#dialog.showModal();
		this.#link.select();
	}

	/** @param {string} name */
	#button(name) {
		return /** @type {HTMLButtonElement} */ (find(this.#dialog, `[name=${name}]`));
	}

	/** @param {string} name @param {() => void} action */
	#onClick(name, action) {
		this.#button(name).addEventListener("click", action);
	}

	/**
	 * A message about what the link does not hold: edits after the model wrote, or what it is about to write.
	 * @param {RequestRecord} request
	 */
	#missing({ prefix, runs }) {
		const { active } = this.#tree;
		const { text } = active.doc;
		if (!runs.some(({ cells }) => text === prefix + textOf(cells))) return t("share_edited");
		return this.#session.isWriting(active) ? t("share_writing") : "";
	}

	/**
	 * Copies a text, which is the value of `input` if given.
	 * @param {string} text @param {HTMLInputElement | null} input
	 */
	async #copy(text, input = null) {
		try {
			await navigator.clipboard.writeText(text); // only where the page came over https or from this machine
		} catch {
			const field = input ?? this.#fieldWith(text);
			field.select();
			const done = document.execCommand("copy");
			if (!input) field.remove();
			if (!done) {
				this.#show(t("copy_failed"));
				return;
			}
		}
		this.#show(t("copied"));
	}

	/** @param {string} text */
	#fieldWith(text) {
		const field = this.#dialog.appendChild(document.createElement("textarea"));
		field.value = text;
		return field;
	}

	/** @param {string} message */
	#show(message) {
		find(this.#dialog, "[role=status]").textContent = message;
	}
}
