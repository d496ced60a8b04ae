// The page put together: which part listens to which event, and what the buttons and keys do.

import { score, writesHere } from "./api/score.js";
import { ProblemError } from "./api/sse.js";
import { BranchTree } from "./editor/branches.js";
import { changesIn, textOf, typed } from "./editor/document.js";
import { classifier, drawLegend, isNotLookedUp, LOOKED_UP } from "./editor/highlight.js";
import { load, save } from "./editor/storage.js";
import { UnknownCharacters } from "./editor/unknown_characters.js";
import { Panels, loadAll } from "./panels/panels.js";
import { requestOf, Session } from "./session.js";
import { AutoScroll } from "./ui/autoscroll.js";
import { nameOf } from "./ui/character_names.js";
import { chooseColour, colourMode, listenToColours } from "./ui/colours.js";
import { $, find, make, phone, sheet } from "./ui/dom.js";
import { glyph, t } from "./ui/i18n.js";
import { Lens } from "./ui/lens.js";
import { Announcer } from "./ui/live_region.js";
import * as form from "./ui/settings_form.js";
import { withAssets } from "./ui/panel_assets.js";
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
const lens = new Lens();
const view = loadView();
showView(view);
const tree = new BranchTree({
	tabs: $("tabs"),
	pages: $("pages"),
	windowSize: card.block_size,
	classify: classifier(colourMode(), unknown),
	onEdit: (branch) => session.stopIn(branch),
	onText,
	onClose: (branch) => {
		glass?.inspectMode.leave(branch);
		session.stopUnseen();
	},
	onChange: update,
	onContinue: write,
});
const session = new Session({
	card,
	tree,
	settings: form.settings,
	here: () => writesHere(card),
	showsMarks: () => LOOKED_UP.has(colourMode()),
	onShow: showNext,
	onState,
	onProblem,
});
const status = new Status({
	state: $("state"),
	text: $("figures"),
	seed: $("last-seed"),
	figures: () => session.figures,
});
const panels = new Panels({ card, tree, session, lens, classify: () => classifier(colourMode(), unknown) });

/** The inspector and its mode, once they are loaded. @type {Glass | null} */
let glass = null;
/** What a pointer did last while they were not. @type {PointerEvent | null} */
let pointed = null;
/** @type {Promise<import("./editor/caret_menu.js").CaretMenu> | null} */
let menu = null;
/** Whether text was selected when the pointer went down, which may select a word by itself. */
let selecting = false;
const writeLabel = $("write").textContent;
/** Whether all is here that writing on this device takes. */
let engineLoaded = false;
/** Whether the reader has done anything. */
let touched = false;
/** Whether the last that they did was done by a key, not by a pointer. */
let typing = false;
let saving = 0;
/** The text that a screen reader hears. @type {Branch | null} */
let announced = null;

/**
 * Has the model continue a text, or show the next character of it, step by step. Only once, when a button is pressed twice, and not with numbers that cannot be used.
 * @param {Branch} branch
 */
function write(branch) {
	if (session.stepping && session.isWriting(branch)) {
		session.step();
		return;
	}
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
	leaveInspectMode();
	glass?.inspector.close();
	session.fork(branch, index, character);
}

/** @type {SessionOptions["onState"]} */
function onState(state, figures) {
	status.show(state, figures);
	showGoOnHere(state === "lost");
	if (state === "waiting") {
		clearMessages();
		glass?.typeAndSee.hide();
		if (sheet.matches) form.toggleDrawer(false); // which leaves no room for the text
		if (lens.active === "growth") lens.show("letter"); // which leaves no room for the text
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

/** Offers to go on on this device where the server is lost and its texts can be written here. @param {boolean} lost */
function showGoOnHere(lost) {
	$("go-on-here").hidden = true;
	if (!lost || !engineLoaded || card.numerics !== "cpu-int8") return;
	$("go-on-here").hidden = false;
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
	if (session.playing) {
		updateCounters(); // nobody asked to hear it, and the page stays where it is
		return;
	}
	if (branch !== announced) announcer.reset();
	announced = branch;
	announcer.add(textOf(inserted));
	updateCounters();
	autoScroll.follow(branch.editor.lines.lastLine);
}

/** @param {Branch} branch */
function onEdited(branch) {
	if (glass?.inspector.open) glass.inspector.close(); // for what is expected at the caret
	clearStaleMessages();
	markForks();
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
	$("continue-all").hidden = tree.shown.length < 2;
	$("reopen").hidden = !tree.canReopen;
	markForks();
	glass?.inspectMode.update();
	updateText();
}

/** One of Write and Stop is shown, in the same place; the keyboard's focus goes from one to the other. */
function showStop(writing = session.writing && !session.playing) {
	const focused = document.activeElement;
	$("stop").disabled = !writing;
	$("form").classList.toggle("writing", writing);
	const { stepping } = session;
	$("form").classList.toggle("stepping", stepping);
	$("write").textContent = stepping ? t("next_letter") : writeLabel;
	if (writing && !stepping && focused === $("write")) $("stop").focus();
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

/** Says that the colours are of what the model wrote, where that was edited, and where there are none. @param {TextDocument} doc */
function showEdited({ cells }) {
	const mode = colourMode();
	const { moved, cut } = changesIn(cells);
	const messages = [];
	if (mode !== "off" && (moved || (cut && LOOKED_UP.has(mode)))) messages.push(t("edited_colours"));
	if (LOOKED_UP.has(mode)) {
		const some = cells.some(isNotLookedUp);
		find($("legend"), ".not-looked-up").hidden = !some;
		if (some) messages.push(t("written_here"));
	}
	const message = messages.join(" ");
	if ($("edited").textContent !== message) $("edited").textContent = message;
}

/** Shows what the colours mean, in steps and in a sentence. */
function showLegend() {
	const mode = colourMode();
	drawLegend($("legend"), mode);
	const sure = !["copied", "invented", "off"].includes(mode);
	$("sentence").textContent = t(`sentence_${sure ? "sure" : mode}`);
	$("measure").hidden = !sure;
}

/** The panel of before a reload; beside the text one is always open. @param {View} view */
function showPanel({ panel = "" }) {
	if (lens.has(panel)) lens.show(panel);
	else lens.show(sheet.matches ? "" : "letter");
}

/** Goes on with a letter at a place of the active text, as if it were typed. @param {number} index @param {string} character */
function typeLetter(index, character) {
	const { active } = tree;
	typing = true;
	session.stopIn(active);
	active.doc.splice(index, index, typed(character), "typing");
	active.editor.root.focus();
	active.editor.setCaret(index + 1);
}

/** Shows what there is to be shown of a letter, or what would show one. */
function showLetterOrNone() {
	const open = glass !== null && glass.inspector.open;
	$("letter-empty").hidden = open || (glass !== null && !glass.typeAndSee.element.hidden);
	$("what-if").hidden = !open;
}

/** The lens shows a character, or none any more. @param {boolean} pinned */
function showLetter(pinned) {
	if (glass?.inspector.open) glass.typeAndSee.hide();
	showLetterOrNone();
	const at = glass?.inspector.at ?? null;
	glass?.shownLetter.mark(at);
	if (!at) return;
	if (pinned) lens.show("letter");
	glass?.shownLetter.showTemperature(form.sampling());
	if (pinned) glass?.shownLetter.reveal(at);
}

/** Marks in each text on the screen the character at which it left another. */
function markForks() {
	if (!CSS.highlights) return;
	const forks = tree.shown.filter(({ parent, at, doc }) => parent !== null && at < doc.length);
	if (tree.shown.length < 2 || !forks.length) CSS.highlights.delete("fork");
	else CSS.highlights.set("fork", new Highlight(...forks.map(({ editor, at }) => editor.lines.rangeOf(at))));
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
	leaveInspectMode();
	tree.active.editor.undo();
}

function redo() {
	leaveInspectMode();
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
	leaveInspectMode();
	const branch = requestOf(tree.active) ? tree.add([]) : tree.active;
	branch.doc.splice(0, branch.doc.length, typed(text));
	tree.activate(branch);
	branch.editor.root.focus();
	branch.editor.setCaret(branch.doc.length);
}

/** Loads what it takes to write on this device, as soon as the reader chooses that: then it works without a network. */
async function loadEngine() {
	if (!writesHere(card)) return;
	try {
		const { loadWithProgress } = await import("./engine/progress.js");
		await loadWithProgress(card);
		engineLoaded = true;
		if (!session.writing) showError("");
	} catch (error) {
		$("write-here").checked = false;
		onProblem(error);
	}
}

/** Without a server, what is copied and invented is looked up on this device, once a reader wants to see it. */
async function markHere() {
	if (!card.serverless || !LOOKED_UP.has(colourMode())) return;
	const { markWritten } = await import("./engine/marks.js");
	await markWritten(card, tree.branches).catch(onProblem);
	tree.redraw(classifier(colourMode(), unknown));
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
	const underlines = $("underlines").checked;
	const drawer = !$("drawer").hidden;
	saveView({
		speed: $("speed").value,
		tint: colourMode(),
		panel: lens.active,
		drawer,
		underlines,
		settings: form.formValues(),
	});
}

/**
 * Shows colours and settings as they were before a reload; what is not on this page is passed over.
 * @param {View} view
 */
function showView({ speed = "", tint = "", drawer = false, underlines = false, settings = {} }) {
	chooseColour(tint);
	const speeds = [...$("speed").options].map(({ value }) => value);
	const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
	if (speeds.includes(speed)) $("speed").value = speed;
	else if (still) $("speed").value = "full"; // who wants no motion gets none, unless they choose it
	form.toggleDrawer(drawer);
	$("underlines").checked = underlines;
	showUnderlines();
	form.fill(settings);
}

function setSpeed() {
	session.speed = /** @type {Speed} */ ($("speed").value);
}

function showUnderlines() {
	$("pages").classList.toggle("underlines", $("underlines").checked);
	$("legend").classList.toggle("underlines", $("underlines").checked);
}

/** On phones, what is rarely used makes room for the text: it stands with the settings. */
function placeTools() {
	const tools = [$("undo"), $("redo"), $("new")];
	if (phone.matches) {
		$("more").after($("look"));
		find($("drawer"), ".choices").prepend(...tools, $("measure"));
	} else {
		$("colours").after($("look"), ...tools);
		$("sentence").after(" ", $("measure"));
	}
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

/** Shows a first visitor a text being written, one that the server has written before, until a key or a click. */
async function play() {
	const begun = tree.active.doc.text;
	const { loadRecording } = await import("./api/recording.js");
	const recording = await loadRecording(card);
	if (!recording || touched || session.writing || tree.active.doc.text !== begun) return;
	await session.play(tree.active, recording);
}

/** @param {Event} event */
function noteTyping({ type: name }) {
	typing = name === "keydown";
}

/** The reader does something: a recording ends where it is, and all code is loaded. */
function takeOver() {
	touched = true;
	if (session.playing) session.stop();
	loadAll();
	loadGlass().catch(() => {}); // which is tried again when it is needed
}

/** The inspector and its mode, loaded once: first when the reader points at a letter. @returns {Promise<Glass>} */
async function loadGlass() {
	const importing = Promise.all([
		import("./inspector/popover.js"),
		import("./inspector/shown_letter.js"),
		import("./inspector/inspect_mode.js"),
		import("./play/type_and_see.js"),
		import("./ui/next_letter.js"),
	]);
	const [{ Inspector }, shownLetter, { InspectMode }, { TypeAndSee }, { NextLetter }] = await withAssets(importing);
	if (glass) return glass;
	const inspector = new Inspector($("inspector"), {
		card,
		settings: form.sampling,
		score: (body, signal) => score(body, card, signal),
		onShow: showLetter,
		onChoose: fork,
	});
	const inspectMode = new InspectMode({
		tree,
		inspector,
		button: $("look"),
		pages: $("pages"),
		mayHover: () => lens.active === "letter" || (lens.active === "" && !sheet.matches),
	});
	const typeAndSee = new TypeAndSee({
		card,
		active: () => tree.active,
		mayShow: () => typing && lens.active === "letter" && !session.writing && !inspectMode.on && !inspector.open,
		onShow: showLetterOrNone,
		onChoose: typeLetter,
	});
	$("letter").prepend(typeAndSee.element);
	const loaded = { inspector, shownLetter, inspectMode, typeAndSee, nextLetter: new NextLetter() };
	glass = loaded;
	if (pointed) inspectMode.point(pointed);
	typeAndSee.look();
	showNext();
	return loaded;
}

/** Shows what is considered for the next character, step by step. */
function showNext() {
	glass?.nextLetter.show(tree.active, session.stepping ? session.next(tree.active) : null);
}

/** Keeps what a pointer does until there is something to show it. @param {PointerEvent} event */
function onPointed(event) {
	if (glass) return;
	pointed = event;
	loadGlass().catch(() => {});
}

async function toggleInspectMode() {
	const { inspectMode } = glass ?? (await loadGlass());
	inspectMode.toggle();
}

/**
 * Opens the menu of the caret, at a pointer or at the caret itself.
 * @param {Branch} branch @param {{ x: number, y: number } | null} at
 */
async function openMenu(branch, at) {
	const { editor } = branch;
	const index = editor.selection()?.start ?? branch.doc.length;
	tree.activate(branch);
	editor.setCaret(index);
	const { left, bottom } = editor.lines.rectOf(index);
	menu ??= loadMenu();
	(await menu).open(at?.x ?? left, at?.y ?? bottom, editor.root);
}

async function loadMenu() {
	try {
		const { CaretMenu } = await withAssets(import("./editor/caret_menu.js"));
		return new CaretMenu({ onWrite: writeFromCaret, onLook: toggleInspectMode });
	} catch (error) {
		menu = null; // the next time tries again
		throw error;
	}
}

/** With Shift, on phones and where text is selected the browser's own menu comes. @param {PointerEvent} event */
function onContextMenu(event) {
	const { shiftKey, pointerType, target, clientX, clientY } = event;
	const branch = tree.branches.find(({ editor }) => editor.root.contains(/** @type {Node | null} */ (target)));
	if (!branch || shiftKey || pointerType === "touch" || selecting || glass?.inspectMode.on) return;
	event.preventDefault();
	openMenu(branch, pointerType === "mouse" ? { x: clientX, y: clientY } : null);
}

function leaveInspectMode() {
	if (glass?.inspectMode.on) glass.inspectMode.toggle(false);
}

/** Writes the text of a link in the address again, and shows whether it is the same. */
async function openLink() {
	const fragment = location.hash.slice(1);
	const opened = history.state?.opened === fragment && tree.active.doc.length > 0; // before a reload
	if (!fragment || opened) return;
	clearMessages();
	const { openFragment } = await withAssets(import("./panels/shared_link.js"));
	await openFragment(fragment, { card, tree, session });
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
	if (altKey && code === "KeyL") return toggleInspectMode;
	if (altKey && code === "KeyM") return () => openMenu(tree.active, null);
	if (altKey && key === "arrowup") return () => activateNext(-1);
	if (altKey && key === "arrowdown") return () => activateNext(1);
	if (key === "?" && !inField && !element.isContentEditable && !command) return showHelp;
	return key === "escape" ? stepBack : null;
}

async function showHelp() {
	const { drawHelp } = await withAssets(import("./panels/help_dialog.js"));
	drawHelp();
	$("help").showModal();
}

/** @param {number} by */
function activateNext(by) {
	tree.activateNext(by);
	if (glass?.inspectMode.on) glass.inspectMode.toggle(true);
	else tree.active.editor.root.focus();
}

/** Leaves the candidates, else stops the writing, else leaves the inspect mode. */
function stepBack() {
	if ($("inspector").contains(document.activeElement)) glass?.inspectMode.focus();
	else if (session.writing) stop();
	else if (glass?.inspectMode.on) leaveInspectMode();
	else glass?.inspector.close();
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
	["look", toggleInspectMode],
	[
		"more",
		() => {
			form.toggleDrawer();
			if (sheet.matches) lens.show(""); // there is room for one of them
			keepView();
		},
	],
	["replace", replaceUnknown],
	[
		"continue-all",
		() => {
			if (form.check()) session.writeAll(tree.branches);
		},
	],
	["side-by-side", () => tree.setSideBySide(!tree.sideBySide)],
	["go-on-here", () => session.goOnHere()],
	["last-seed", () => form.fill({ seed: Number($("last-seed").value) })],
	["help-open", showHelp],
];
for (const [id, action] of clicks) $(id)?.addEventListener("click", action);
for (const button of $("examples").querySelectorAll("button")) {
	button.addEventListener("click", () => begin(button.value));
}
$("write-caret").addEventListener("mousedown", (event) => event.preventDefault()); // the caret stays where it is
listenToColours(() => {
	tree.redraw(classifier(colourMode(), unknown));
	showLegend();
	updateText();
	keepView();
	markHere();
});
$("lens-temperature").addEventListener("input", () => form.set("temperature", $("lens-temperature").value));
form.listen(() => {
	glass?.inspector.draw();
	glass?.shownLetter.showTemperature(form.sampling());
	panels.update();
});
$("form").addEventListener("change", keepView);
$("speed").addEventListener("change", () => {
	setSpeed();
	showStop();
});
$("underlines").addEventListener("change", showUnderlines);
$("write-here").addEventListener("change", loadEngine);
addEventListener("unhandledrejection", () => showError(t("page_error")));
addEventListener("error", () => showError(t("page_error")));
document.addEventListener("keydown", onKey);
for (const name of ["pointerdown", "keydown"]) {
	addEventListener(name, takeOver, { once: true, capture: true });
	addEventListener(name, noteTyping, { capture: true });
}
$("pages").addEventListener("contextmenu", onContextMenu);
$("pages").addEventListener("pointerdown", () => {
	selecting = !getSelection().isCollapsed;
});
$("pages").addEventListener("pointermove", onPointed);
$("pages").addEventListener("click", onPointed);
addEventListener("hashchange", openLink);
addEventListener("pagehide", saveNow);
document.addEventListener("visibilitychange", () => {
	if (document.hidden) saveNow();
});

document.body.classList.toggle("show", new URLSearchParams(location.search).has("show")); // for a projector
const heights = new ResizeObserver(() => {
	const { style } = document.documentElement;
	style.setProperty("--dock", `${$("form").offsetHeight}px`); // where the sheet stands
	style.setProperty("--sheet", `${sheet.matches ? $("lens").offsetHeight : 0}px`); // and the way to the end of the text
	if (sheet.matches && glass?.inspector.at?.pinned) glass.shownLetter.reveal(glass.inspector.at);
});
heights.observe($("form"));
heights.observe($("lens"));

phone.addEventListener("change", placeTools);
placeTools();
setSpeed();
showLegend();
restore();
showPanel(view);
lens.listen((name) => {
	if (sheet.matches && name) form.toggleDrawer(false);
	keepView();
});
status.show("idle");
if (card.serverless) {
	// Files are kept when the first of them are here, which have the network for themselves until then. The worker is
	// absent where the origin is not secure, and the page works without.
	loadEngine().then(() => navigator.serviceWorker?.register("offline.js").catch(() => {}));
	markHere();
} else if (view.time === 0 && !location.hash && requestOf(tree.active) === null) play();
openLink();
