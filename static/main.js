// The page put together: which part hears of what, and what the buttons and keys do.

import { Announcer } from "./announce.js";
import { typed } from "./document.js";
import { Follower } from "./follow.js";
import * as form from "./form.js";
import { Glass } from "./glass.js";
import { Inspector } from "./inspector.js";
import { Session, requestOf } from "./session.js";
import { ProblemError } from "./sse.js";
import { Status } from "./status.js";
import { load, save } from "./store.js";
import { number, t } from "./texts.js";
import { drawLegend, lookOf } from "./tint.js";
import { Tree } from "./tree.js";
import { Unknown } from "./unknown.js";

const SAVE_AFTER = 400; // milliseconds after the last change
const LISTED = 12; // unknown characters that are shown

const $ = (id) => document.getElementById(id);
const card = JSON.parse($("card").textContent);
const unknown = new Unknown(card);
const announcer = new Announcer($("announcer"));
const follower = new Follower($("pill"));
const tree = new Tree({
  tabs: $("tabs"),
  pages: $("pages"),
  look: lookOf($("tint").value, unknown),
  onEdit: (branch) => session.stopIn(branch),
  onChange: () => update(),
});
const session = new Session({ card, tree, parameters: form.parameters, onState, onText, onProblem });
const status = new Status({
  state: $("state"),
  text: $("figures"),
  seed: $("last-seed"),
  figures: () => session.figures,
});
const inspector = new Inspector($("inspector"), { card, settings: form.sampling, onChoose: fork });
const glass = new Glass({ tree, inspector, button: $("look"), pages: $("pages") });

let saving = 0;
let reports = null; // this panel and the dialog that shares, once they have been opened
let dialog = null;

function write(branch) {
  form.clearErrors();
  $("error").textContent = $("verdict").textContent = "";
  return session.write(branch);
}

function writeFromCaret() {
  const { active } = tree;
  const at = active.editor.selection()?.end ?? active.doc.length;
  return at < active.doc.length ? fork(active, at, "") : write(active);
}

function fork(branch, index, character) {
  if (glass.on) glass.toggle(false);
  inspector.close();
  return session.fork(branch, index, character);
}

function onState(state, figures) {
  status.show(state, figures);
  if (state === "waiting") follower.start();
  if (!session.writing) {
    follower.stop();
    announcer.finish();
    showReport();
    saveSoon();
  }
  update();
}

function onText(branch, text) {
  if (branch !== tree.active) return;
  announcer.add(text);
  updateText();
  follower.follow(branch.editor.root.lastElementChild);
}

function onProblem(error) {
  if (!(error instanceof ProblemError)) {
    console.error(error);
    $("error").textContent = t("lost");
    return;
  }
  const message = form.showProblem(error.problem);
  const foreign = error.problem.errors?.some(({ field }) => field === "Last-Event-ID");
  $("error").textContent = foreign ? t("another_model") : message;
}

/** Everything that depends on which texts there are and whether one is being written. */
function update() {
  if (!tree.active) return;
  $("stop").disabled = !session.writing;
  $("pages").setAttribute("aria-busy", String(session.writing));
  $("side-by-side").hidden = tree.branches.length < 2;
  $("side-by-side").setAttribute("aria-pressed", String(tree.sideBySide));
  $("reopen").hidden = !tree.canReopen;
  for (const branch of tree.branches) {
    branch.listening ??= branch.doc.listen(() => onChange(branch));
    setPast(branch);
  }
  glass.update();
  updateText();
}

function onChange(branch) {
  setPast(branch);
  if (session.writing) return;
  if (inspector.at?.branch === branch) inspector.close();
  updateText();
  saveSoon();
}

function setPast({ editor, doc }) {
  editor.lines.setPast(Math.max(0, doc.length - card.block_size));
}

function updateText() {
  const { doc } = tree.active;
  const seen = Math.min(doc.length, card.block_size);
  $("counters").textContent = t("counters", { count: number(doc.length), seen: number(seen) });
  $("undo").disabled = !doc.canUndo;
  $("redo").disabled = !doc.canRedo;
  if (!session.writing) showUnknown(doc);
}

function showUnknown(doc) {
  const found = [...unknown.find(doc.cells)];
  const pairs = found.slice(0, LISTED).map(([c, replacement]) => `${c} → ${replacement}`);
  $("unknown-list").textContent = pairs.join("   ") + (found.length > LISTED ? " …" : "");
  $("unknown").hidden = found.length === 0;
}

function replaceUnknown() {
  const { doc, editor } = tree.active;
  const cells = doc.cells.flatMap((cell) => (unknown.has(cell.c) ? [cell] : typed(unknown.replacement(cell.c))));
  doc.splice(0, doc.length, cells);
  editor.root.focus();
  editor.setCaret(cells.length);
}

/** An example takes the place of what was typed; what the model wrote stays, and a new text begins. */
function begin(text) {
  session.stop();
  const branch = requestOf(tree.active) ? tree.add([]) : tree.active;
  branch.doc.splice(0, branch.doc.length, typed(text));
  tree.activate(branch);
  branch.editor.root.focus();
  branch.editor.setCaret(branch.doc.length);
}

function saveSoon() {
  clearTimeout(saving);
  saving = setTimeout(() => session.writing || save(tree, form.parameters()), SAVE_AFTER);
}

/** Texts of before a reload, or the first example. */
function restore() {
  const saved = load(card.checkpoint);
  if (!saved) {
    tree.add(location.hash ? [] : typed($("examples").querySelector("button")?.value ?? ""));
    return;
  }
  form.fill(saved.settings);
  for (const { cells, name, parent, at } of saved.branches) tree.add(cells, parent && { name: parent }, at, name);
  tree.activate(tree.branches.find(({ name }) => name === saved.active) ?? tree.branches[0]);
  tree.setSideBySide(saved.sideBySide);
}

/** A link in the address is written again, and what came of it is told. */
async function openLink() {
  const fragment = location.hash.slice(1);
  if (!fragment) return;
  history.replaceState(null, "", location.pathname + location.search);
  const { fromFragment } = await import("./share.js");
  const link = await fromFragment(fragment);
  if (!link) {
    $("error").textContent = t("bad_link");
    return;
  }
  form.fill(link.parameters);
  const result = await session.replay(link);
  if (!result) return;
  const { same, sample, at, request } = result;
  const there = `${link.checkpoint} ${link.numerics}`;
  const here = `${request.checkpoint} ${request.numerics}`;
  const reason = here === there ? "" : ` ${t("replay_other", { here, there })}`;
  const difference = () => t("replay_different", { sample: number(sample + 1), at: number(at + 1) });
  $("verdict").textContent = same ? t("replay_identical") : difference() + reason;
  $("verdict").dataset.same = String(same);
}

async function share() {
  const { ShareDialog } = await import("./share_dialog.js");
  dialog ??= new ShareDialog($("share"), { tree, requestOf });
  dialog.open();
}

/** Panels load their modules when they are first opened. */
const panels = {
  "card-details": async () => (await import("./card.js")).drawCard($("card-panel"), card),
  report: async () => {
    const { ReportPanel } = await import("./report.js");
    reports = new ReportPanel($("report-panel"), $("report-button"), { text: () => tree.active.doc.text });
    showReport();
  },
  growth: async () => new (await import("./growth.js")).Growth($("growth"), { asked: askedOfSnapshots }),
};

/** What the report says of the sample that the active text ends with. */
function showReport() {
  const request = requestOf(tree.active);
  const report = request?.reports?.[tree.active.doc.cells.findLast(({ run }) => run).run.sample];
  if (report) reports?.show(report);
}

/** The beginning of the active text, with the luck and the settings that wrote it. */
function askedOfSnapshots() {
  const request = requestOf(tree.active);
  const prompt = Array.from(request?.prefix ?? tree.active.doc.text).slice(-card.block_size).join("");
  const settings = Object.entries(form.sampling()).filter(([, value]) => value !== null);
  return { prompt, seed: request?.seed ?? 1337, ...Object.fromEntries(settings) };
}

/** Ctrl (or Command) and Alt keys work everywhere; the others where nobody types. */
function onKey(event) {
  const command = event.ctrlKey || event.metaKey;
  const inField = event.target.matches("input, textarea, select");
  const typing = inField || event.target.isContentEditable;
  const key = event.key.toLowerCase();
  const { editor } = tree.active;
  const actions = [
    [command && key === "enter", () => (event.shiftKey ? writeFromCaret() : write(tree.active))],
    [command && !inField && key === "z", () => (event.shiftKey ? editor.redo() : editor.undo())],
    [command && !inField && key === "y", () => editor.redo()],
    [event.altKey && event.code === "KeyL", () => glass.toggle()],
    [event.altKey && key === "arrowup", () => walk(-1)],
    [event.altKey && key === "arrowdown", () => walk(1)],
    [key === "?" && !typing && !command, () => $("help").showModal()],
    [key === "escape" && !document.querySelector("dialog[open]"), stepBack],
  ];
  const found = actions.find(([holds]) => holds);
  if (!found) return;
  event.preventDefault();
  found[1]();
}

function walk(by) {
  tree.walk(by);
  if (glass.on) glass.toggle(true);
  else tree.active.editor.root.focus();
}

/** Out of the candidates, else out of the writing, else out of the looking mode. */
function stepBack() {
  if ($("inspector").contains(document.activeElement)) glass.focus();
  else if (session.writing) session.stop();
  else if (glass.on) glass.toggle(false);
  else inspector.close();
}

const clicks = {
  write: () => write(tree.active),
  "write-caret": writeFromCaret,
  stop: () => session.stop(),
  undo: () => tree.active.editor.undo(),
  redo: () => tree.active.editor.redo(),
  reopen: () => tree.reopen(),
  replace: replaceUnknown,
  "side-by-side": () => tree.setSideBySide(!tree.sideBySide),
  "last-seed": () => form.fill({ seed: Number($("last-seed").value) }),
  "share-open": share,
  "help-open": () => $("help").showModal(),
};
for (const [id, action] of Object.entries(clicks)) $(id).addEventListener("click", action);
for (const button of $("examples").querySelectorAll("button")) {
  button.addEventListener("click", () => begin(button.value));
}
$("write-caret").addEventListener("mousedown", (event) => event.preventDefault()); // the caret stays where it is
$("tint").addEventListener("change", ({ target }) => {
  tree.redraw(lookOf(target.value, unknown));
  drawLegend($("legend"), target.value);
});
for (const [id, load] of Object.entries(panels)) $(id)?.addEventListener("toggle", load, { once: true });
form.listen(() => inspector.draw());
document.addEventListener("keydown", onKey);
addEventListener("hashchange", openLink);
addEventListener("pagehide", () => save(tree, form.parameters()));

drawLegend($("legend"), $("tint").value);
restore();
status.show("idle");
openLink();
