// The panels of the lens and the dialog that shares. Their code is loaded when it is first needed, or as soon as the
// reader does anything: it is not part of the first sight, and later the server may be away.

import { requestOf } from "../session.js";
import { $ } from "../ui/dom.js";
import { Retry } from "../ui/retry.js";
import { sampling } from "../ui/settings_form.js";

const DEFAULT_SEED = 1337; // of /snapshots
const loaders = {
	letter: () => import("../inspector/candidates.js"),
	report: () => import("./report.js"),
	growth: () => import("./snapshots.js"),
	model: () => import("./model_card.js"),
	share: () => import("./share_dialog.js"),
	key: () => import("../api/api_key.js"),
};

/** Loads all code that is not loaded yet; without the server it is loaded when it is needed. */
export function loadAll() {
	for (const load of Object.values(loaders)) load().catch(() => {});
}

export class Panels {
	#card;
	#tree;
	#session;
	/** @type {import("./report.js").ReportPanel | null} */
	#report = null;
	/** What the panel shows once it is there. @type {{ report: Report, branch: Branch, text: string } | null} */
	#found = null;
	/** @type {import("./snapshots.js").SnapshotPanel | null} */
	#snapshots = null;
	/** @type {import("./share_dialog.js").ShareDialog | null} */
	#dialog = null;
	#cardDrawn = false;

	/** @param {PanelsOptions} options */
	constructor({ card, tree, session, lens }) {
		this.#card = card;
		this.#tree = tree;
		this.#session = session;
		lens.listen((name) => this.#open(name));
		$("share-open").addEventListener("click", () => this.#share());
	}

	/** Shows the report of the sample that the active text ends with, if there is one. */
	showReport() {
		const { active } = this.#tree;
		const run = active.doc.cells.findLast((cell) => cell.run)?.run;
		const report = run?.request.reports?.[run.sample];
		if (!report) return;
		this.#found = { report, branch: active, text: active.doc.text };
		this.#report?.show(report, active);
	}

	/** Marks as stale what the panels show of another text or other settings than those of now. */
	update() {
		this.#report?.update();
		this.#snapshots?.update();
	}

	/** A panel of the lens is shown, for the first time or again. @param {string} name */
	async #open(name) {
		if (name === "report") await this.#openReport();
		else if (name === "growth") await this.#openGrowth();
		else if (name === "model") await this.#openCard();
	}

	async #openReport() {
		if (this.#report) return;
		const loaded = await new Retry($("report-panel")).run(loaders.report);
		if (!loaded || this.#report) return;
		$("report-panel").replaceChildren();
		this.#report = new loaded.ReportPanel($("report-panel"), $("report-button"), {
			active: () => this.#tree.active,
		});
		if (this.#found) this.#report.show(this.#found.report, this.#found.branch, this.#found.text);
	}

	async #openGrowth() {
		const box = /** @type {HTMLElement} */ ($("growth"));
		const status = /** @type {HTMLElement} */ (box.querySelector("[role=status]"));
		const loaded = this.#snapshots ? null : await new Retry(status).run(loaders.growth);
		if (loaded && !this.#snapshots) {
			this.#snapshots = new loaded.SnapshotPanel(box, { query: () => this.#snapshotQuery() });
		}
		this.#snapshots?.open();
	}

	async #openCard() {
		if (this.#cardDrawn) return;
		const loaded = await new Retry($("card-panel")).run(loaders.model);
		if (!loaded) return;
		this.#cardDrawn = true;
		loaded.drawCard($("card-panel"), this.#card);
	}

	async #share() {
		const loaded = this.#dialog ? null : await loaders.share();
		if (loaded) this.#dialog ??= new loaded.ShareDialog($("share"), { tree: this.#tree, session: this.#session });
		this.#dialog?.open();
	}

	/**
	 * The beginning of the active text, with the seed and the settings that continue it, as /snapshots takes them.
	 * @returns {Record<string, string>}
	 */
	#snapshotQuery() {
		const { active } = this.#tree;
		const request = requestOf(active);
		const text = request?.prefix ?? active.doc.text;
		const prompt = Array.from(text).slice(-this.#card.block_size).join("");
		const query = { prompt, seed: String(request?.seed ?? DEFAULT_SEED) };
		const given = Object.entries(sampling()).filter(([, value]) => value !== null);
		return { ...query, ...Object.fromEntries(given.map(([name, value]) => [name, String(value)])) };
	}
}
