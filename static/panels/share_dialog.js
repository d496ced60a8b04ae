// The dialog that shares a text: links, copy, download, and a picture.

import { isSingleFile, post } from "../api/sse.js";
import { textOf } from "../editor/document.js";
import { MAX_FRAGMENT, download, toFragment, toJson, toShortFragment, toText } from "../editor/share_format.js";
import { requestOf } from "../session.js";
import { copyText } from "../ui/clipboard.js";
import { $, find, make, makeButton } from "../ui/dom.js";
import { t } from "../ui/i18n.js";
import { describe, drawPicture } from "./share_picture.js";

const MAX_CODE = 600; // characters of a link that a QR code can hold (app/web/qr_code.py)

export class ShareDialog {
	#dialog;
	#options;
	#link = make("input");
	#short = make("input");
	#canvas = make("canvas", "picture");
	#status = make("p");
	#copyLink = makeButton("", t("copy_link"), () => this.#copy(this.#link.value));
	#save = makeButton("", t("save_picture"), () => this.#savePicture());
	#controller = new AbortController();

	/** @param {HTMLDialogElement} dialog @param {ShareOptions} options */
	constructor(dialog, options) {
		const { tree } = options;
		this.#dialog = dialog;
		this.#options = options;
		const title = make("h2", "", t("share_title"));
		title.id = "share-title";
		const buttons = make("div", "bar");
		buttons.append(
			this.#copyLink,
			makeButton("", t("copy_text"), () => this.#copy(tree.active.doc.text)),
			makeButton("", t("save_text"), () => download("soliloquy.txt", "text/plain", toText(tree.branches))),
			makeButton("", t("save_json"), () => {
				const content = toJson(tree.active, requestOf(tree.active));
				download("soliloquy.json", "application/json", content);
			}),
			this.#save,
		);
		this.#status.setAttribute("role", "status");
		this.#canvas.setAttribute("role", "img");
		const copyShort = makeButton("quiet", t("copy_short"), () => this.#copy(this.#short.value));
		copyShort.setAttribute("aria-label", t("copy_short_link"));
		dialog.append(
			title,
			...fieldOf(this.#link, "link", t("share_link")),
			make("p", "hint", t(isSingleFile ? "share_hint_file" : "share_hint")),
			...fieldOf(this.#short, "short-link", t("share_short"), copyShort),
			buttons,
			this.#status,
			verifyLink(dialog),
			this.#canvas,
			makeButton("", t("close"), () => dialog.close()),
		);
		dialog.addEventListener("close", () => this.#controller.abort());
	}

	async open() {
		const { session, tree } = this.#options;
		session.showAll(); // the text is then all that the link holds, while it is being written too
		const request = requestOf(tree.active);
		const message = request ? this.#missing(request) : t("share_nothing");
		const fragment = request ? await toFragment(request) : "";
		const fits = request !== null && fragment.length <= MAX_FRAGMENT;
		this.#link.value = fits ? addressOf(fragment) : "";
		this.#short.value = fits ? addressOf(await toShortFragment(request)) : "";
		for (const button of [this.#copyLink, this.#save]) button.disabled = !fits;
		this.#canvas.hidden = !fits;
		this.#show(request && !fits ? t("share_too_long") : message);
		this.#dialog.showModal();
		this.#link.select();
		if (fits) await this.#draw(request);
	}

	/** Draws the picture, first without the code, which the server makes. @param {RequestRecord} request */
	async #draw(request) {
		const { tree, classify } = this.#options;
		const cells = [...tree.active.doc.cells];
		/** @type {PictureContent} */
		const content = { cells, request, classify: classify(), lead: leadOfPage(), rows: [] };
		this.#canvas.setAttribute("aria-label", describe(content));
		this.#canvas.dataset.code = "";
		drawPicture(this.#canvas, content);
		if (this.#options.card.serverless || this.#short.value.length > MAX_CODE) return;
		this.#controller = new AbortController();
		const { signal } = this.#controller;
		try {
			/** @type {{ rows: string[] }} */
			const { rows } = await post("/qr", { text: this.#short.value }, signal);
			drawPicture(this.#canvas, { ...content, rows });
			this.#canvas.dataset.code = "drawn";
		} catch {
			// the server is away: the picture goes without
		}
	}

	#savePicture() {
		this.#canvas.toBlob((blob) => {
			if (blob) download("soliloquy.png", "image/png", blob);
		}, "image/png");
	}

	/**
	 * A message about what the link does not hold: edits after the model wrote, or what it is about to write.
	 * @param {RequestRecord} request
	 */
	#missing({ prefix, runs }) {
		const { session, tree } = this.#options;
		const { text } = tree.active.doc;
		if (!runs.some(({ cells }) => text === prefix + textOf(cells))) return t("share_edited");
		return session.isWriting(tree.active) ? t("share_writing") : "";
	}

	/** @param {string} text */
	async #copy(text) {
		this.#show(t((await copyText(text, this.#dialog)) ? "copied" : "copy_failed"));
	}

	/** @param {string} message */
	#show(message) {
		this.#status.textContent = message;
	}
}

/** A field that is only read, with its label. @param {HTMLInputElement} field @param {string} name @param {string} words @param {HTMLElement[]} beside */
function fieldOf(field, name, words, ...beside) {
	Object.assign(field, { id: name, name, readOnly: true });
	const label = make("label", "", words);
	label.htmlFor = name;
	const row = make("div", "with-button");
	row.append(field, ...beside);
	return [label, row];
}

/** What the page says of the model, without the sentences that explain its words. */
function leadOfPage() {
	const lead = /** @type {HTMLElement} */ (find(document, ".lead").cloneNode(true));
	for (const tip of lead.querySelectorAll(".tip")) tip.remove();
	return lead.textContent.replace(/\s+/g, " ").trim();
}

/** Where receipts and links are verified; in a page that is a single file, in place of this dialog. @param {HTMLDialogElement} dialog */
function verifyLink(dialog) {
	const link = make("a", "", $("verify-open").textContent);
	link.href = $("verify-open").href;
	link.addEventListener("click", () => dialog.close());
	const paragraph = make("p", "hint with-room");
	paragraph.append(link);
	return paragraph;
}

/** @param {string} fragment */
function addressOf(fragment) {
	const address = new URL(location.href); // also that of a file, which has no origin
	address.search = "";
	address.hash = fragment;
	return address.href;
}
