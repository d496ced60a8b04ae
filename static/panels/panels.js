// The panels of the lens and the dialogs that share and play. Their code is loaded when it is first needed, or as soon as the
// reader does anything: it is not part of the first sight, and later the server may be away.

import { get } from "../api/sse.js";
import { requestOf } from "../session.js";
import { $ } from "../ui/dom.js";
import { withAssets } from "../ui/panel_assets.js";
import { Retry } from "../ui/retry.js";
import { sampling } from "../ui/settings_form.js";

const DEFAULT_SEED = 1337; // of /snapshots
const loaders = {
	letter: () => withAssets(import("../inspector/candidates.js")),
	report: () => withAssets(import("./report.js")),
	growth: () => withAssets(import("./snapshots.js")),
	model: (signal = new AbortController().signal) =>
		withAssets(Promise.all([import("./model_card.js"), loadInfo(signal)])),
	help: () => withAssets(import("./help_dialog.js")),
	play: () => withAssets(import("../play/play_dialog.js")),
	share: () => withAssets(import("./share_dialog.js")),
	key: () => import("../api/api_key.js"),
};

/** @type {ModelCard | null} */
let info = null;

/**
 * All of the model card, of which the page has a part from the beginning; a page that stands alone has all.
 * @param {AbortSignal} signal @returns {Promise<ModelCard>}
 */
async function loadInfo(signal) {
	const card = JSON.parse($("card").textContent);
	info ??= card.serverless ? card : await get("/info", signal);
	return /** @type {ModelCard} */ (info);
}

/** Has texts that are written on this device have reports from now on. @param {ModelCard} card */
async function loadIndexHere(card) {
	const { loadIndex } = await import("../engine/client.js");
	loadIndex(card).catch(() => {}); // whoever asks for a report is told
}

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
	/** @type {import("../play/play_dialog.js").PlayDialog | null} */
	#playDialog = null;
	#classify;
	#cardDrawn = false;

	/** @param {PanelsOptions} options */
	constructor({ card, tree, session, lens, classify }) {
		this.#card = card;
		this.#classify = classify;
		this.#tree = tree;
		this.#session = session;
		lens.listen((name) => this.#open(name));
		$("share-open").addEventListener("click", () => this.#share());
		$("play-open").addEventListener("click", () => this.#play());
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
			card: this.#card,
			active: () => this.#tree.active,
		});
		if (this.#card.serverless) loadIndexHere(this.#card);
		if (this.#found) this.#report.show(this.#found.report, this.#found.branch, this.#found.text);
	}

	async #openGrowth() {
		const box = /** @type {HTMLElement} */ ($("growth"));
		const status = /** @type {HTMLElement} */ (box.querySelector("[role=status]"));
		const loaded = this.#snapshots ? null : await new Retry(status).run(loaders.growth);
		if (loaded && !this.#snapshots) {
			this.#snapshots = new loaded.SnapshotPanel(box, { card: this.#card, query: () => this.#snapshotQuery() });
		}
		this.#snapshots?.open();
	}

	async #openCard() {
		if (this.#cardDrawn) return;
		const loaded = await new Retry($("card-panel")).run(loaders.model);
		if (!loaded) return;
		const [{ drawCard }, facts] = loaded;
		this.#cardDrawn = true;
		drawCard($("card-panel"), facts);
	}

	async #share() {
		const loaded = this.#dialog ? null : await loaders.share();
		if (loaded && !this.#dialog) {
			this.#dialog = new loaded.ShareDialog($("share"), {
				card: this.#card,
				tree: this.#tree,
				session: this.#session,
				classify: this.#classify,
			});
		}
		this.#dialog?.open();
	}

	async #play() {
		const loaded = this.#playDialog ? null : await loaders.play();
		if (loaded) {
			this.#playDialog ??= new loaded.PlayDialog({
				card: this.#card,
				tree: this.#tree,
				classify: this.#classify,
			});
		}
		this.#session.stop();
		this.#playDialog?.open();
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
