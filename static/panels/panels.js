// The panels beside the text, and the dialog that shares. All of their code comes with the page: what is loaded later
// cannot be loaded while the server is away.

import { drawCard } from "./model_card.js";
import { sampling } from "../ui/settings_form.js";
import { Growth } from "./snapshots.js";
import { ReportPanel } from "./report.js";
import { requestOf } from "../session.js";
import { ShareDialog } from "./share_dialog.js";

const $ = (id) => document.getElementById(id);

export class Panels {
  #report = null;
  #growth = null;

  constructor({ card, tree, session }) {
    Object.assign(this, { card, tree });
    drawCard($("card-panel"), card);
    if ($("report")) {
      this.#report = new ReportPanel($("report-panel"), $("report-button"), { active: () => tree.active });
    }
    if ($("growth")) {
      this.#growth = new Growth($("growth"), { asked: () => this.#asked() });
      whenOpen($("growth"), () => this.#growth.open());
    }
    const dialog = new ShareDialog($("share"), { tree, session });
    $("share-open").addEventListener("click", () => dialog.open());
  }

  /** What the report says of the sample that the active text ends with, if the panel is there to say it. */
  showReport() {
    const run = this.tree.active.doc.cells.findLast((cell) => cell.run)?.run;
    const report = run?.request.reports?.[run.sample];
    if (report) this.#report?.show(report, this.tree.active);
  }

  /** The text or the settings may have changed: what is shown of others says so. */
  update() {
    this.#report?.update();
    this.#growth?.update();
  }

  /** The beginning of the active text, with the luck and the settings that go on from there. */
  #asked() {
    const request = requestOf(this.tree.active);
    const text = request?.prefix ?? this.tree.active.doc.text;
    const prompt = Array.from(text).slice(-this.card.block_size).join("");
    const settings = Object.entries(sampling()).filter(([, value]) => value !== null);
    return { prompt, seed: request?.seed ?? 1337, ...Object.fromEntries(settings) };
  }
}

/** Calls `action` whenever `details` is opened, and once the page is put together if somebody was quicker than that. */
function whenOpen(details, action) {
  details.addEventListener("toggle", () => details.open && action());
  if (details.open) queueMicrotask(action);
}
