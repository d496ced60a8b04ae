// The page put together: which part hears of what, and what the buttons and keys do.

import { Announcer } from "./ui/live_region.js";
import { changesIn, typed } from "./editor/document.js";
import { Follower } from "./ui/autoscroll.js";
import * as form from "./ui/settings_form.js";
import { Glass } from "./inspector/inspect_mode.js";
import { Inspector } from "./inspector/popover.js";
import { nameOf } from "./ui/character_names.js";
import { Panels } from "./panels/panels.js";
import { Session, requestOf } from "./session.js";
import { fromFragment } from "./editor/share_format.js";
import { ProblemError } from "./api/sse.js";
import { Status } from "./ui/status.js";
import { load, save } from "./editor/storage.js";
import { glyph, t } from "./ui/i18n.js";
import { drawLegend, lookOf } from "./editor/highlight.js";
import { Tree } from "./editor/branches.js";
import { Unknown } from "./editor/unknown_characters.js";
import { recall, remember } from "./ui/view_state.js";

const SAVE_AFTER = 400; // milliseconds after the last change
const UNSAVED = { texts: "not_saved_runs", nothing: "not_saved" };
const LISTED = 12; // unknown characters that are shown

const $ = (id) => document.getElementById(id);
const card = JSON.parse($("card").textContent);
const unknown = new Unknown(card);
const view = recall();
const announcer = new Announcer($("announcer"));
const follower = new Follower($("pill"));
showView();
const tree = new Tree({
  tabs: $("tabs"),
  pages: $("pages"),
  look: lookOf($("tint").value, unknown),
  onEdit: (branch) => session.stopIn(branch),
  onText: (branch) => onChange(branch),
  onClose: (branch) => {
    glass.leave(branch);
    session.stopUnseen();
  },
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
const panels = new Panels({ card, tree, session });

let saving = 0;
let heard = null; // the text that a screen reader hears

/** Asks for more; not twice for the same, when a button is pressed twice, and not with numbers that cannot be used. */
function write(branch) {
  if (!session.waiting && form.check()) session.write(branch);
}

function writeFromCaret() {
  const { active } = tree;
  const at = active.editor.selection()?.end ?? active.doc.length;
  if (at < active.doc.length) fork(active, at, "");
  else write(active);
}

function fork(branch, index, character) {
  if (!form.check()) return;
  if (glass.on) glass.toggle(false);
  inspector.close();
  session.fork(branch, index, character);
}

function onState(state, figures) {
  status.show(state, figures);
  if (state === "waiting") {
    clearMessages();
    follower.start();
  }
  if (!session.writing) {
    follower.stop();
    announcer.finish(figures?.count ? t("said_written", { count: figures.count }) : "");
    panels.showReport();
    saveSoon();
  }
  update();
}

function clearMessages() {
  form.clearErrors();
  $("error").textContent = "";
  $("verdict").textContent = "";
}

/** Takes away what was said of a text; that it cannot be saved stays true. */
function forget() {
  $("verdict").textContent = "";
  if (!tellsUnsaved()) $("error").textContent = "";
}

/** A message that is not there yet: a screen reader would read it again. */
function showError(message) {
  if ($("error").textContent !== message) $("error").textContent = message;
}

function onText(branch, text) {
  if (branch !== tree.active) return;
  if (branch !== heard) announcer.reset();
  heard = branch;
  announcer.add(text);
  updateText();
  follower.follow(branch.editor.root.lastElementChild);
}

function onProblem(error) {
  if (!(error instanceof ProblemError)) {
    console.error(error);
    showError(t("page_error"));
    return;
  }
  const message = form.showProblem(error.problem);
  const foreign = error.problem.errors?.some(({ field }) => field === "Last-Event-ID");
  showError(foreign ? t("another_model") : message);
}

/** Everything that depends on which texts there are and whether one is being written. */
function update() {
  if (!tree.active) return;
  $("stop").disabled = !session.writing;
  $("pages").setAttribute("aria-busy", String(session.writing));
  $("side-by-side").hidden = tree.branches.length < 2;
  $("side-by-side").setAttribute("aria-pressed", String(tree.sideBySide));
  $("reopen").hidden = !tree.canReopen;
  for (const branch of tree.branches) setPast(branch);
  glass.update();
  updateText();
}

function onChange(branch) {
  setPast(branch);
  if (session.isWriting(branch)) return;
  if (inspector.at?.branch === branch) inspector.close();
  forget(); // what was about the text as it was
  if (branch === tree.active) updateText();
  saveSoon();
}

function setPast({ editor, doc }) {
  editor.lines.setPast(Math.max(0, doc.length - card.block_size));
}

function updateText() {
  const { doc } = tree.active;
  const seen = Math.min(doc.length, card.block_size);
  $("counters").textContent = t("counters", { count: doc.length, seen });
  $("undo").disabled = !doc.canUndo;
  $("redo").disabled = !doc.canRedo;
  panels.update();
  if (session.isWriting(tree.active)) return;
  showUnknown(doc);
  showEdited(doc);
}

/** Colours tell of what the model wrote: says so where that was edited. */
function showEdited({ cells }) {
  const mode = $("tint").value;
  const { moved, cut } = changesIn(cells);
  const edited = moved || (cut && ["copied", "invented"].includes(mode));
  const message = edited && mode !== "off" ? t("edited_colours") : "";
  if ($("edited").textContent !== message) $("edited").textContent = message;
}

function showUnknown(doc) {
  const found = [...unknown.find(doc.cells)];
  const pairs = found.slice(0, LISTED).flatMap(([c, replacement]) => {
    const pair = document.createElement("bdi"); // a character that is written from the right moves no other
    pair.textContent = `${nameOf(c) ?? c} → ${Array.from(replacement, glyph).join("")}`;
    return [pair, "   "];
  });
  $("unknown-list").replaceChildren(...pairs, found.length > LISTED ? "…" : "");
  $("unknown").hidden = found.length === 0;
}

function replaceUnknown() {
  const { doc, editor } = tree.active;
  const cells = unknown.replace(doc.cells);
  session.stopIn(tree.active);
  doc.splice(0, doc.length, cells);
  editor.root.focus();
  editor.setCaret(cells.length);
}

/** Undo or redo, out of the looking mode if need be. */
function travel(way) {
  if (glass.on) glass.toggle(false);
  tree.active.editor[way]();
}

function stop() {
  session.stop();
  if (document.activeElement === document.body) $("write").focus();
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
  saving = setTimeout(() => session.writing || saveNow(), SAVE_AFTER);
}

function saveNow() {
  saveView();
  const saved = save(tree);
  if (session.writing) return;
  if (saved !== "all") showError(t(UNSAVED[saved]));
  else if (tellsUnsaved()) showError("");
}

function tellsUnsaved() {
  return Object.values(UNSAVED).some((key) => $("error").textContent === t(key));
}

function saveView() {
  const open = [...document.querySelectorAll("details[open]")].map(({ id }) => id);
  remember({ tint: $("tint").value, open, settings: form.state() });
}

/** Colours, panels and settings as they were before a reload; what is not there on this page is passed over. */
function showView() {
  const modes = [...$("tint").options].map(({ value }) => value);
  if (modes.includes(view.tint)) $("tint").value = view.tint;
  for (const id of view.open ?? []) if ($(id)?.matches("details")) $(id).open = true;
  form.fill(view.settings ?? {});
}

/** Texts of before a reload, or the first example. */
function restore() {
  const saved = load(card.checkpoint);
  if (!saved) {
    tree.add(location.hash ? [] : typed($("examples").querySelector("button")?.value ?? ""));
    return;
  }
  for (const { cells, name, parent, at } of saved.branches) tree.add(cells, parent && { name: parent }, at, name);
  tree.activate(tree.branches.find(({ name }) => name === saved.active) ?? tree.branches[0]);
  for (const name of saved.closed) tree.close(tree.branches.find((branch) => branch.name === name));
  tree.setSideBySide(saved.sideBySide);
}

/** A link in the address is written again, and what came of it is told. */
async function openLink() {
  const fragment = location.hash.slice(1);
  if (!fragment) return;
  clearMessages();
  history.replaceState(history.state, "", location.pathname + location.search);
  const link = await fromFragment(fragment);
  if (!link) {
    $("error").textContent = t("bad_link");
    return;
  }
  form.fill(link.parameters);
  const result = await session.replay(link);
  const { checkpoint, numerics } = result?.request ?? card;
  const there = `${link.checkpoint} ${link.numerics}`;
  const here = `${checkpoint} ${numerics}`;
  const reason = here === there ? "" : ` ${t("replay_other", { here, there })}`;
  if (!result) {
    if ($("error").textContent) $("error").append(reason); // why it may have been refused
    return;
  }
  const { same, sample, at } = result;
  const difference = () => t("replay_different", { sample: sample + 1, at: at + 1 });
  $("verdict").textContent = same ? t("replay_identical") : difference() + reason;
  $("verdict").dataset.same = String(same);
}

/** Ctrl (or Command) and Alt keys work everywhere; the others where nobody types. */
function onKey(event) {
  if (event.isComposing || (event.repeat && event.key === "Enter")) return;
  if (event.getModifierState("AltGraph") || document.querySelector("dialog[open]")) return;
  const command = event.ctrlKey || event.metaKey;
  const inField = event.target.matches("input, textarea, select");
  const typing = inField || event.target.isContentEditable;
  const key = event.key.toLowerCase();
  const actions = [
    [command && key === "enter", () => (event.shiftKey ? writeFromCaret() : write(tree.active))],
    [command && !inField && key === "z", () => travel(event.shiftKey ? "redo" : "undo")],
    [command && !inField && key === "y", () => travel("redo")],
    [event.altKey && event.code === "KeyL", () => glass.toggle()],
    [event.altKey && key === "arrowup", () => walk(-1)],
    [event.altKey && key === "arrowdown", () => walk(1)],
    [key === "?" && !typing && !command, () => $("help").showModal()],
    [key === "escape", stepBack],
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
  else if (session.writing) stop();
  else if (glass.on) glass.toggle(false);
  else inspector.close();
}

const clicks = {
  write: () => write(tree.active),
  "write-caret": writeFromCaret,
  stop,
  undo: () => travel("undo"),
  redo: () => travel("redo"),
  reopen: () => tree.reopen(),
  replace: replaceUnknown,
  "side-by-side": () => tree.setSideBySide(!tree.sideBySide),
  "last-seed": () => form.fill({ seed: Number($("last-seed").value) }),
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
  updateText();
  saveView();
});
form.listen(() => {
  inspector.draw();
  panels.update();
});
$("form").addEventListener("change", saveView);
for (const details of document.querySelectorAll("details")) details.addEventListener("toggle", saveView);
addEventListener("unhandledrejection", () => showError(t("page_error")));
addEventListener("error", () => showError(t("page_error")));
document.addEventListener("keydown", onKey);
addEventListener("hashchange", openLink);
addEventListener("pagehide", saveNow);
document.addEventListener("visibilitychange", () => document.hidden && saveNow());

drawLegend($("legend"), $("tint").value);
restore();
status.show("idle");
openLink();
