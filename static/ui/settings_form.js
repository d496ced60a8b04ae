// The settings: sliders and numbers as a request's fields, and errors shown at the field they are about. Numbers are
// text fields: what a browser's own number field makes of 1e3, 1,000 or a pasted word is not what was typed.

import { nameOf } from "./character_names.js";
import { $ } from "./dom.js";
import { number, t } from "./i18n.js";

const form = $("form");
/** @type {(keyof Sampling)[]} */
const SLIDERS = ["temperature", "top_k", "top_p", "min_p"];
/** @type {("max_new_tokens" | "num_samples" | "seed")[]} */
const NUMBERS = ["max_new_tokens", "num_samples", "seed"];
const MAX_REPEATED = 40; // characters of what was typed that a message repeats

/** @param {string} name @returns {HTMLInputElement} */
function input(name) {
	return /** @type {any} */ (form.elements.namedItem(name));
}

/** The value of each slider at which it cuts nothing off. @returns {Record<string, string | undefined>} */
function offValues() {
	return { top_k: input("top_k").max, top_p: input("top_p").max, min_p: input("min_p").min };
}

/** The sampling settings; null where they cut nothing off. @returns {Sampling} */
export function sampling() {
	const off = offValues();
	const read = (/** @type {string} */ name) => {
		const { value } = input(name);
		return value === off[name] ? null : Number(value);
	};
	const temperature = Number(input("temperature").value);
	return { temperature, top_k: read("top_k"), top_p: read("top_p"), min_p: read("min_p") };
}

/** The fields of a request, without the prompt; an empty number is its default, or left to the server. */
export function settings() {
	/** @type {Settings} */
	const fields = sampling();
	for (const name of NUMBERS) {
		const { value } = readNumber(input(name));
		if (value !== null) fields[name] = value;
	}
	return fields;
}

/** What stands in all fields, as `fill` takes it. @returns {FormValues} */
export function formValues() {
	return { ...sampling(), ...Object.fromEntries(NUMBERS.map((name) => [name, input(name).value])) };
}

/**
 * Whether all that was typed can be used: the length, the samples, the seed, and the exact values. What is wrong is
 * shown at those that cannot, and the first of them is focused.
 */
export function check() {
	const refused = SLIDERS.filter((name) => exactField(name).ariaInvalid === "true");
	clearErrors();
	const wrong = NUMBERS.map(input).filter((field) => readNumber(field).message);
	for (const field of wrong) showError(field, readNumber(field).message);
	wrong.push(...refused.filter((name) => !onExact(/** @type {keyof Sampling} */ (name))).map(exactField));
	if (wrong.length) focusOn(wrong[0]);
	return wrong.length === 0;
}

/**
 * What was typed into a field: a whole number or null, and what is wrong with it if anything is.
 * @param {HTMLInputElement} field
 */
function readNumber(field) {
	const typed = field.value.trim() || field.dataset.default;
	if (!typed) return { value: null, message: "" };
	const range = rangeOf(field);
	if (!/^[+\-−]?[0-9]+$/.test(typed)) {
		return { value: null, message: t("not_whole", { typed: shortened(typed), ...range }) };
	}
	const value = Number(typed.replace("−", "-"));
	if (value < range.low) return { value: null, message: t("too_small", range) };
	if (value > range.high) return { value: null, message: t("too_large", range) };
	return { value: value || 0, message: "" }; // -0 is 0
}

/** @param {HTMLInputElement} field */
function rangeOf({ dataset }) {
	return { low: Number(dataset.low), high: Number(dataset.high) };
}

/** @param {string} typed */
function shortened(typed) {
	const characters = Array.from(typed, (c) => (c === " " ? c : (nameOf(c) ?? c)));
	return characters.slice(0, MAX_REPEATED).join("") + (characters.length > MAX_REPEATED ? "…" : "");
}

/** Shows or hides the settings that are rarely needed. */
export function toggleDrawer(open = $("more").getAttribute("aria-expanded") === "false") {
	$("drawer").hidden = !open;
	$("more").setAttribute("aria-expanded", String(open));
	form.classList.toggle("open", open); // on phones, where few settings fit in the row
}

/** @param {HTMLInputElement} field */
function focusOn(field) {
	if (field.closest("#dock"))
		form.classList.add("open"); // the row of the dock, which phones hide, but not the drawer
	else if (!field.checkVisibility()) toggleDrawer(true);
	field.focus();
}

/** @param {HTMLInputElement} field @param {string} message */
function showError(field, message) {
	field.ariaInvalid = message ? "true" : null;
	const error = document.getElementById(`${field.name}-error`);
	const label = error?.closest("#messages") && message ? `${field.labels?.[0].textContent}: ` : "";
	if (error) error.textContent = label + message; // which names the field where it stands by itself
}

/** Puts a request's fields into the form; the others stay as they are. @param {FormValues} fields */
export function fill(fields) {
	const off = offValues();
	for (const name of [...SLIDERS, ...NUMBERS]) {
		if (!(name in fields)) continue;
		const field = input(name);
		const value = fields[name] ?? null;
		if (field.type === "range") allow(field, value);
		field.value = String(value ?? off[name] ?? "");
	}
	showValues();
}

/** Moves a slider as if someone had. @param {keyof Sampling} name @param {string | number} value */
export function set(name, value) {
	fill({ [name]: value });
	input(name).dispatchEvent(new Event("input", { bubbles: true }));
	input(name).dispatchEvent(new Event("change", { bubbles: true }));
}

/** Calls `listener` after each change of a sampling setting. @param {() => void} listener */
export function listen(listener) {
	for (const name of SLIDERS) input(name).addEventListener("input", listener);
}

export function clearErrors() {
	for (const element of form.querySelectorAll("[id$='-error']")) element.textContent = "";
	for (const element of form.querySelectorAll("[aria-invalid]")) element.removeAttribute("aria-invalid");
}

/**
 * Shows a problem at its fields; returns what is to be said elsewhere, as it is about none of them.
 * @param {Problem} problem
 */
export function showProblem(problem) {
	clearErrors();
	const rest = [];
	for (const { field: name, message } of problem.errors ?? []) {
		const field = input(name);
		if (field && document.getElementById(`${name}-error`)) {
			showError(field, message);
			focusOn(field);
		} else {
			rest.push(name === "prompt" ? t("never_seen") : `${name}: ${message}`);
		}
	}
	if (problem.errors?.length) return rest.join("; ");
	return [429, 503].includes(problem.status) ? t("busy") : (problem.detail ?? t("lost"));
}

/**
 * Lets a slider take a value between its steps, until it is moved, or beyond its ends, as a link or an exact value may
 * ask for. That of top-k ends where every character is kept.
 * @param {HTMLInputElement} slider @param {number | string | null} value
 */
function allow(slider, value) {
	slider.dataset.step ??= slider.step;
	slider.step = "any";
	if (value === null || slider.name === "top_k") return;
	slider.min = String(Math.min(Number(slider.min), Number(value)));
	slider.max = String(Math.max(Number(slider.max), Number(value)));
}

function showValues() {
	const values = sampling();
	for (const name of SLIDERS) {
		const output = /** @type {HTMLElement} */ (document.getElementById(`${name}-value`));
		const { value } = input(name);
		output.textContent = values[name] === null ? t("off") : number(Number(value), 2);
		input(name).setAttribute("aria-valuetext", output.textContent);
		if (document.activeElement !== exactField(name)) exactField(name).value = value;
	}
}

/** The text field beside a slider, for values between its steps. @param {string} name */
function exactField(name) {
	return /** @type {HTMLInputElement} */ (document.getElementById(`${name}-exact`));
}

/**
 * Takes over what was typed beside a slider, or says what can be typed; returns whether it was taken.
 * @param {keyof Sampling} name
 */
function onExact(name) {
	const slider = input(name);
	const field = exactField(name);
	const typed = field.value.trim().replace(",", ".");
	const value = Number(typed);
	const whole = name !== "top_k" || Number.isInteger(value);
	const valid = typed !== "" && whole && value >= Number(slider.min) && value <= Number(slider.max);
	const range = { low: limit(slider.min), high: limit(slider.max) };
	const error = /** @type {HTMLElement} */ (document.getElementById(`${field.id}-error`));
	error.textContent = valid ? "" : t("exact_range", range);
	field.ariaInvalid = valid ? null : "true";
	if (valid) set(name, value);
	return valid;
}

/** @param {string} value */
function limit(value) {
	return { value: Number(value), digits: 2 };
}

/**
 * Counts up or down with the arrow keys, within the range.
 * @param {KeyboardEvent} event @param {HTMLInputElement} field
 */
function step(event, field) {
	if ((event.key !== "ArrowUp" && event.key !== "ArrowDown") || event.altKey) return;
	const { value, message } = readNumber(field);
	if (message || value === null) return;
	event.preventDefault();
	const { low, high } = rangeOf(field);
	field.value = String(Math.max(low, Math.min(high, value + (event.key === "ArrowUp" ? 1 : -1))));
	showError(field, "");
}

for (const slider of SLIDERS.map(input)) {
	slider.addEventListener("input", (event) => {
		if (slider.dataset.step && event.isTrusted) slider.step = slider.dataset.step;
		showValues();
	});
	exactField(slider.name).addEventListener("change", () => onExact(/** @type {keyof Sampling} */ (slider.name)));
}
for (const field of NUMBERS.map(input)) {
	field.addEventListener("input", () => showError(field, ""));
	field.addEventListener("change", () => showError(field, readNumber(field).message));
	field.addEventListener("keydown", (event) => step(event, field));
}
showValues();
