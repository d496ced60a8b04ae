// The page that verifies: its form alone.

import { $ } from "../ui/dom.js";
import { VerifyView } from "./view.js";

/** @type {ModelCard} */
const card = JSON.parse($("card").textContent);
const view = new VerifyView(/** @type {HTMLElement} */ ($("verify")), card);

/** Verifies a link that stands in the page's own address. */
function openLink() {
	if (location.hash.startsWith("#s=")) view.paste(location.href);
}

addEventListener("hashchange", openLink);
openLink();
