// The panels beside the text, and the dialog that shares. All of their code comes with the page: what is loaded later
// cannot be loaded while the server is away.

import { requestOf } from "../session.js";
import { $ } from "../ui/dom.js";
import { sampling } from "../ui/settings_form.js";
import { drawCard } from "./model_card.js";
import { ReportPanel } from "./report.js";
import { ShareDialog } from "./share_dialog.js";
import { SnapshotPanel } from "./snapshots.js";

const DEFAULT_SEED = 1337; // of /snapshots

export class Panels {
	#card;
	#tree;
	/** @type {ReportPanel | null} */
	#report = null;
	/** @type {SnapshotPanel | null} */
	#snapshots = null;

	/** @param {PanelsOptions} options */
	constructor({ card, tree, session }) {
		this.#card = card;
		this.#tree = tree;
		drawCard($("card-panel"), card);
		if ($("report")) {
			this.#report = new ReportPanel($("report-panel"), $("report-button"), { active: () => tree.active });
		}
		const growth = $("growth");
		if (growth) {
			const panel = new SnapshotPanel(growth, { query: () => this.#snapshotQuery() });
			this.#snapshots = panel;
			whenOpen(growth, () => panel.open());
		}
		const dialog = new ShareDialog($("share"), { tree, session });
		$("share-open").addEventListener("click", () => dialog.open());
	}

	/** Shows the report of the sample that the active text ends with, if there is one. */
	showReport() {
		const { active } = this.#tree;
		const run = active.doc.cells.findLast((cell) => cell.run)?.run;
		const report = run?.request.reports?.[run.sample];
		if (report) this.#report?.show(report, active);
	}

	/** Marks as stale what the panels show of another text or other settings than those of now. */
	update() {
		this.#report?.update();
		this.#snapshots?.update();
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

/**
 * Calls `action` whenever `details` is opened, and once the page is put together if it was opened before.
 * @param {HTMLDetailsElement} details @param {() => void} action
 */
function whenOpen(details, action) {
	details.addEventListener("toggle", () => {
		if (details.open) action();
	});
	if (details.open) queueMicrotask(action);
}
