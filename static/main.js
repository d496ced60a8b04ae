// The page put together: which part listens to which event, and what the buttons and keys do.

import { ProblemError } from "./api/sse.js";
import { BranchTree } from "./editor/branches.js";
import { changesIn, textOf, typed } from "./editor/document.js";
import { classifier, drawLegend } from "./editor/highlight.js";
import { fromFragment } from "./editor/share_format.js";
import { load, save } from "./editor/storage.js";
import { UnknownCharacters } from "./editor/unknown_characters.js";
import { InspectMode } from "./inspector/inspect_mode.js";
import { Inspector } from "./inspector/popover.js";
import { Panels } from "./panels/panels.js";
import { requestOf, Session } from "./session.js";
import { AutoScroll } from "./ui/autoscroll.js";
import { nameOf } from "./ui/character_names.js";
import { $, make } from "./ui/dom.js";
import { glyph, t } from "./ui/i18n.js";
import { Announcer } from "./ui/live_region.js";
import * as form from "./ui/settings_form.js";
import { Status } from "./ui/status.js";
import { loadView, saveView } from "./ui/view_state.js";

const SAVE_DELAY = 400; // milliseconds after the last change
const NOT_SAVED = { texts: "not_saved_runs", nothing: "not_saved" };
const MAX_LISTED = 12; // unknown characters that are shown

/** @type {ModelCard} */
const card = JSON.parse($("card").textContent);
const unknown = new UnknownCharacters(card);
const announcer = new Announcer($("announcer"));
const autoScroll = new AutoScroll($("pill"));
showView(loadView());
const tree = new BranchTree({
	tabs: $("tabs"),
	pages: $("pages"),
	windowSize: card.block_size,
	classify: classifier($("tint").value, unknown),
	onEdit: (branch) => session.stopIn(branch),
	onText,
	onClose: (branch) => {
		inspectMode.leave(branch);
		session.stopUnseen();
	},
	onChange: update,
});
const session = new Session({ card, tree, settings: form.settings, onState, onProblem });
const status = new Status({
	state: $("state"),
	text: $("figures"),
	seed: $("last-seed"),
	figures: () => session.figures,
});
const inspector = new Inspector($("inspector"), { card, settings: form.sampling, onChoose: fork });
const inspectMode = new InspectMode({ tree, inspector, button: $("look"), pages: $("pages") });
const panels = new Panels({ card, tree, session });

let saving = 0;
/** The text that a screen reader hears. @type {Branch | null} */
let announced = null;

/**
 * Has the model continue a text; once, when a button is pressed twice, and not with numbers that cannot be used.
 * @param {Branch} branch
 */
function write(branch) {
	if (!session.waiting && form.check()) session.write(branch);
}

function writeFromCaret() {
	const { active } = tree;
	const at = active.editor.selection()?.end ?? active.doc.length;
	if (at < active.doc.length) fork(active, at, "");
	else write(active);
}

/** @param {Branch} branch @param {number} index @param {string} character */
function fork(branch, index, character) {
	if (!form.check()) return;
	if (inspectMode.on) inspectMode.toggle(false);
	inspector.close();
	session.fork(branch, index, character);
}

/** @type {SessionOptions["onState"]} */
function onState(state, figures) {
	status.show(state, figures);
	if (state === "waiting") {
		clearMessages();
		autoScroll.start();
	}
	if (!session.writing) {
		autoScroll.stop();
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

/** Clears the messages about a text that was edited; that it cannot be saved stays true. */
function clearStaleMessages() {
	$("verdict").textContent = "";
	if (!showsNotSaved()) $("error").textContent = "";
}

/** Shows a message, once: a screen reader would read it again. @param {string} message */
function showError(message) {
	if ($("error").textContent !== message) $("error").textContent = message;
}

/** A text has changed: the model wrote, or someone edited it. @param {Branch} branch @param {Change} change */
function onText(branch, change) {
	if (change.run) onWritten(branch, change);
	else onEdited(branch);
}

/** @param {Branch} branch @param {Change} change */
function onWritten(branch, { inserted }) {
	if (branch !== tree.active) return;
	if (branch !== announced) announcer.reset();
	announced = branch;
	announcer.add(textOf(inserted));
	updateCounters();
	autoScroll.follow(branch.editor.root.lastElementChild);
}

/** @param {Branch} branch */
function onEdited(branch) {
	if (inspector.at?.branch === branch) inspector.close();
	clearStaleMessages();
	if (branch === tree.active) updateText();
	saveSoon();
}

/** @param {unknown} error */
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
	showStop();
	$("pages").setAttribute("aria-busy", String(session.writing));
	$("side-by-side").hidden = tree.branches.length < 2;
	$("side-by-side").setAttribute("aria-pressed", String(tree.sideBySide));
	$("reopen").hidden = !tree.canReopen;
	inspectMode.update();
	updateText();
}

/** One of Write and Stop is shown, in the same place; the keyboard's focus goes from one to the other. */
function showStop(writing = session.writing) {
	const focused = document.activeElement;
	$("stop").disabled = !writing;
	$("form").classList.toggle("writing", writing);
	if (writing && focused === $("write")) $("stop").focus();
	if (!writing && focused === $("stop")) $("write").focus();
}

function updateText() {
	updateCounters();
	$("examples").hidden = tree.active.doc.length > 0;
	if (session.isWriting(tree.active)) return;
	showUnknown(tree.active.doc);
	showEdited(tree.active.doc);
}

function updateCounters() {
	const { doc } = tree.active;
	const seen = doc.length - doc.windowStart;
	$("counters").textContent = t("counters", { count: doc.length, seen });
	$("counters").title = t("counters_title", { seen });
	$("undo").disabled = !doc.canUndo;
	$("redo").disabled = !doc.canRedo;
	panels.update();
}

/** Says that the colours are of what the model wrote, where that was edited. @param {TextDocument} doc */
function showEdited({ cells }) {
	const mode = $("tint").value;
	const { moved, cut } = changesIn(cells);
	const edited = moved || (cut && ["copied", "invented"].includes(mode));
	const message = edited && mode !== "off" ? t("edited_colours") : "";
	if ($("edited").textContent !== message) $("edited").textContent = message;
}

/** @param {TextDocument} doc */
function showUnknown(doc) {
	const found = [...unknown.find(doc.cells)];
	const pairs = found.slice(0, MAX_LISTED).flatMap(([c, replacement]) => {
		const words = `${nameOf(c) ?? c} → ${Array.from(replacement, glyph).join("")}`;
		return [make("bdi", "", words), "   "]; // isolated: a character that is written from the right moves no other
	});
	$("unknown-list").replaceChildren(...pairs, found.length > MAX_LISTED ? "…" : "");
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

function undo() {
	if (inspectMode.on) inspectMode.toggle(false);
	tree.active.editor.undo();
}

function redo() {
	if (inspectMode.on) inspectMode.toggle(false);
	tree.active.editor.redo();
}

function stop() {
	session.stop();
	if (document.activeElement === document.body) $("write").focus();
}

/**
 * Begins a text, in the place of what was typed; what the model wrote stays beside it.
 * @param {string} text
 */
function begin(text) {
	session.stop();
	if (inspectMode.on) inspectMode.toggle(false);
	const branch = requestOf(tree.active) ? tree.add([]) : tree.active;
	branch.doc.splice(0, branch.doc.length, typed(text));
	tree.activate(branch);
	branch.editor.root.focus();
	branch.editor.setCaret(branch.doc.length);
}

function saveSoon() {
	clearTimeout(saving);
	saving = setTimeout(() => {
		if (!session.writing) saveNow();
	}, SAVE_DELAY);
}

function saveNow() {
	keepView();
	const saved = save(tree);
	if (session.writing) return;
	if (saved !== "all") showError(t(NOT_SAVED[saved]));
	else if (showsNotSaved()) showError("");
}

function showsNotSaved() {
	return Object.values(NOT_SAVED).some((key) => $("error").textContent === t(key));
}

function keepView() {
	const open = [...document.querySelectorAll("details[open]")].map(({ id }) => id);
	const underlines = $("underlines").checked;
	const drawer = !$("drawer").hidden;
	saveView({ tint: $("tint").value, open, drawer, underlines, settings: form.formValues() });
}

/**
 * Shows colours, panels and settings as they were before a reload; what is not on this page is passed over.
 * @param {View} view
 */
function showView({ tint = "", open = [], drawer = false, underlines = false, settings = {} }) {
	const modes = [...$("tint").options].map(({ value }) => value);
	if (modes.includes(tint)) $("tint").value = tint;
	for (const id of open) {
		const details = document.getElementById(id);
		if (details instanceof HTMLDetailsElement) details.open = true;
	}
	form.toggleDrawer(drawer);
	$("underlines").checked = underlines;
	showUnderlines();
	form.fill(settings);
}

function showUnderlines() {
	$("pages").classList.toggle("underlines", $("underlines").checked);
	$("legend").classList.toggle("underlines", $("underlines").checked);
}

/** Shows the texts of before a reload, or the first example. */
function restore() {
	const saved = load(card.checkpoint);
	if (!saved) {
		tree.add(location.hash ? [] : typed($("examples").querySelector("button")?.value ?? ""));
		return;
	}
	for (const { cells, name, parent, at } of saved.branches) {
		tree.add(cells, parent === null ? null : { name: parent }, at, name);
	}
	tree.activate(tree.branches.find(({ name }) => name === saved.active) ?? tree.branches[0]);
	for (const name of saved.closed) {
		const branch = tree.branches.find((one) => one.name === name);
		if (branch) tree.close(branch);
	}
	tree.setSideBySide(saved.sideBySide);
}

/** Writes the text of a link in the address again, and shows whether it is the same. */
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
	const different = { sample: sample + 1, at: at + 1 };
	$("verdict").textContent = same ? t("replay_identical") : t("replay_different", different) + reason;
	$("verdict").dataset.same = String(same);
}

/**
 * Keys with Ctrl (or Command) and Alt work everywhere; the others where nobody types.
 * @param {KeyboardEvent} event
 */
function onKey(event) {
	if (event.isComposing || (event.repeat && event.key === "Enter")) return;
	if (event.getModifierState("AltGraph") || document.querySelector("dialog[open]")) return;
	const action = actionOf(event);
	if (!action) return;
	event.preventDefault();
	action();
}

/** @param {KeyboardEvent} event */
function actionOf({ key: name, code, target, ctrlKey, metaKey, altKey, shiftKey }) {
	const command = ctrlKey || metaKey;
	const element = /** @type {HTMLElement} */ (target);
	const inField = element.matches("input, textarea, select");
	const key = name.toLowerCase();
	if (command && key === "enter") return shiftKey ? writeFromCaret : () => write(tree.active);
	if (command && !inField && key === "z") return shiftKey ? redo : undo;
	if (command && !inField && key === "y") return redo;
	if (altKey && code === "KeyL") return () => inspectMode.toggle();
	if (altKey && key === "arrowup") return () => activateNext(-1);
	if (altKey && key === "arrowdown") return () => activateNext(1);
	if (key === "?" && !inField && !element.isContentEditable && !command) return () => $("help").showModal();
	return key === "escape" ? stepBack : null;
}

/** @param {number} by */
function activateNext(by) {
	tree.activateNext(by);
	if (inspectMode.on) inspectMode.toggle(true);
	else tree.active.editor.root.focus();
}

/** Leaves the candidates, else stops the writing, else leaves the inspect mode. */
function stepBack() {
	if ($("inspector").contains(document.activeElement)) inspectMode.focus();
	else if (session.writing) stop();
	else if (inspectMode.on) inspectMode.toggle(false);
	else inspector.close();
}

/** @type {[keyof PageElements, () => void][]} */
const clicks = [
	["write", () => write(tree.active)],
	["write-caret", writeFromCaret],
	["stop", stop],
	["undo", undo],
	["redo", redo],
	["reopen", () => tree.reopen()],
	["new", () => begin("")],
	[
		"more",
		() => {
			form.toggleDrawer();
			keepView();
		},
	],
	["replace", replaceUnknown],
	["side-by-side", () => tree.setSideBySide(!tree.sideBySide)],
	["last-seed", () => form.fill({ seed: Number($("last-seed").value) })],
	["help-open", () => $("help").showModal()],
];
for (const [id, action] of clicks) $(id)?.addEventListener("click", action);
for (const button of $("examples").querySelectorAll("button")) {
	button.addEventListener("click", () => begin(button.value));
}
$("write-caret").addEventListener("mousedown", (event) => event.preventDefault()); // the caret stays where it is
$("tint").addEventListener("change", () => {
	const mode = $("tint").value;
	tree.redraw(classifier(mode, unknown));
	drawLegend($("legend"), mode);
	updateText();
	keepView();
});
form.listen(() => {
	inspector.draw();
	panels.update();
});
$("form").addEventListener("change", keepView);
$("underlines").addEventListener("change", showUnderlines);
for (const details of document.querySelectorAll("details")) details.addEventListener("toggle", keepView);
addEventListener("unhandledrejection", () => showError(t("page_error")));
addEventListener("error", () => showError(t("page_error")));
document.addEventListener("keydown", onKey);
addEventListener("hashchange", openLink);
addEventListener("pagehide", saveNow);
document.addEventListener("visibilitychange", () => {
	if (document.hidden) saveNow();
});

drawLegend($("legend"), $("tint").value);
restore();
status.show("idle");
openLink();
