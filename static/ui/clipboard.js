// Copying, also where a browser gives no page its clipboard.

/**
 * Copies a text; returns whether that was done. `within` is the element that has the keyboard's focus, such as a dialog.
 * @param {string} text @param {HTMLElement} within
 */
export async function copyText(text, within) {
	try {
		await navigator.clipboard.writeText(text); // only where the page came over https or from this machine
		return true;
	} catch {
		const field = within.appendChild(document.createElement("textarea"));
		field.value = text;
		field.select();
		const done = document.execCommand("copy");
		field.remove();
		return done;
	}
}
