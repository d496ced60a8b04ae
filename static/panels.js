// The panels beside the text, and the dialog that shares: each loads its module when it is first opened.

import { sampling } from "./form.js";
import { requestOf } from "./session.js";

const $ = (id) => document.getElementById(id);

export class Panels {
  #reports = null;
  #dialog = null;

  constructor({ card, tree }) {
    Object.assign(this, { card, tree });
    const panels = { "card-details": () => this.#card(), report: () => this.#report(), growth: () => this.#growth() };
    for (const [id, load] of Object.entries(panels)) {
      if ($(id)?.open) load(); // by somebody quicker than this module
      else $(id)?.addEventListener("toggle", load, { once: true });
    }
    $("share-open").addEventListener("click", () => this.#share());
  }

  /** What the report says of the sample that the active text ends with, if the panel is there to say it. */
  showReport() {
    const run = this.tree.active.doc.cells.findLast((cell) => cell.run)?.run;
    const report = run?.request.reports?.[run.sample];
    if (report) this.#reports?.show(report);
  }

  async #card() {
    const { drawCard } = await import("./card.js");
    drawCard($("card-panel"), this.card);
  }

  async #report() {
    const { ReportPanel } = await import("./report.js");
    this.#reports = new ReportPanel($("report-panel"), $("report-button"), { text: () => this.tree.active.doc.text });
    $("report-button").disabled = false; // a click before would be lost
    this.showReport();
  }

  async #growth() {
    const { Growth } = await import("./growth.js");
    new Growth($("growth"), { asked: () => this.#asked() });
  }

  async #share() {
    const { ShareDialog } = await import("./share_dialog.js");
    this.#dialog ??= new ShareDialog($("share"), { tree: this.tree, requestOf });
    this.#dialog.open();
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
