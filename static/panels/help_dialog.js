// The dialog of help: what can be done here, and the keys.

import { $, make, makeButton } from "../ui/dom.js";
import { lists, t } from "../ui/i18n.js";

/** Fills the dialog. */
export function drawHelp() {
	const dialog = $("help");
	const title = make("h2", "", t("help"));
	title.id = "help-title";
	title.tabIndex = -1;
	title.autofocus = true; // or the dialog would begin at its end, where the button is
	const table = make("table");
	table.createCaption().textContent = t("keys_title");
	for (const [keys, what] of lists("key_list")) {
		const row = table.insertRow();
		const head = row.appendChild(make("th"));
		head.scope = "row";
		for (const key of keys.split(" ")) head.append(make("kbd", "", key), " ");
		row.insertCell().textContent = what;
	}
	dialog.replaceChildren(
		title,
		...lists("help_text").map(([paragraph]) => make("p", "", paragraph)),
		table,
		makeButton("", t("close"), () => dialog.close()),
	);
}
