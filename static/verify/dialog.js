// The same form in a dialog, where the page is a single file: it has no other page. Its address is #verify.

import { $ } from "../ui/dom.js";
import { VerifyView } from "./view.js";

/** @type {VerifyView | null} */
let view = null;

/** Opens the dialog. @param {ModelCard} card */
export function openVerify(card) {
	const dialog = /** @type {HTMLDialogElement | null} */ ($("verify"));
	if (!dialog) {
		location.href = $("verify-open").href; // a page of its own
		return;
	}
	if (!view) {
		view = new VerifyView(dialog, card);
		dialog.addEventListener("close", () => (location.hash = ""));
		for (const button of dialog.querySelectorAll("[name=close]")) {
			button.addEventListener("click", () => dialog.close());
		}
	}
	if (!dialog.open) dialog.showModal();
}
