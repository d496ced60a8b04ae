// The settings: sliders and numbers as a request's fields, and errors shown at the field they are about. Numbers are
// fields of text: what a browser's own number field makes of 1e3, 1,000 or a pasted word is not what was typed.

import { nameOf } from "./character_names.js";
import { number, t } from "./i18n.js";

const form = document.getElementById("form");
const SLIDERS = ["temperature", "top_k", "top_p", "min_p"];
const NUMBERS = ["max_new_tokens", "num_samples", "seed"];
const SHOWN = 40; // characters of what was typed that a message repeats

/** The sampling settings: temperature, and top_k, top_p, min_p or null where they cut nothing off. */
export function sampling() {
  const at = (name) => form.elements[name];
  const unless = (input, off) => (input.value === off ? null : Number(input.value));
  return {
    temperature: Number(at("temperature").value),
    top_k: unless(at("top_k"), at("top_k").max),
    top_p: unless(at("top_p"), at("top_p").max),
    min_p: unless(at("min_p"), at("min_p").min),
  };
}

/** The fields of a request, without the prompt; an empty number is its placeholder, or left to the server. */
export function parameters() {
  const body = sampling();
  for (const name of NUMBERS) {
    const { value } = read(form.elements[name]);
    if (value !== null) body[name] = value;
  }
  return body;
}

/** What stands in all fields, as `fill` takes it. */
export function state() {
  return { ...sampling(), ...Object.fromEntries(NUMBERS.map((name) => [name, form.elements[name].value])) };
}

/** Whether all numbers can be used; what is wrong is shown at those that cannot, and the first of them gets the focus. */
export function check() {
  clearErrors();
  const wrong = NUMBERS.map((name) => form.elements[name]).filter((input) => read(input).message);
  for (const input of wrong) showError(input, read(input).message);
  wrong[0]?.focus();
  return wrong.length === 0;
}

/** What was typed into a field, {value, message}: a whole number or null, and what is wrong with it if anything is. */
function read(input) {
  const typed = input.value.trim() || input.dataset.default;
  if (!typed) return { value: null, message: "" };
  const range = { low: Number(input.dataset.low), high: Number(input.dataset.high) };
  if (!/^[+\-−]?[0-9]+$/.test(typed)) return { value: null, message: t("not_whole", { typed: shortened(typed), ...range }) };
  const value = Number(typed.replace("−", "-"));
  if (value < range.low) return { value: null, message: t("too_small", range) };
  if (value > range.high) return { value: null, message: t("too_large", range) };
  return { value: value || 0, message: "" };
}

function shortened(typed) {
  const characters = Array.from(typed, (c) => (c === " " ? c : (nameOf(c) ?? c)));
  return characters.slice(0, SHOWN).join("") + (characters.length > SHOWN ? "…" : "");
}

function showError(input, message) {
  if (message) input.setAttribute("aria-invalid", "true");
  else input.removeAttribute("aria-invalid");
  document.getElementById(`${input.name}-error`).textContent = message;
}

/** Puts a request's fields into the form; those that it has not stay as they are. */
export function fill(fields) {
  const off = { top_k: form.elements.top_k.max, top_p: form.elements.top_p.max, min_p: form.elements.min_p.min };
  for (const name of [...SLIDERS, ...NUMBERS]) {
    const input = form.elements[name];
    if (!(name in fields)) continue;
    if (input.type === "range") allow(input, fields[name]);
    input.value = fields[name] ?? off[name] ?? "";
  }
  showValues();
}

/** Calls `listener` after each change of a sampling setting. */
export function listen(listener) {
  for (const name of SLIDERS) form.elements[name].addEventListener("input", listener);
}

export function clearErrors() {
  for (const element of form.querySelectorAll(".error")) element.textContent = "";
  for (const element of form.querySelectorAll("[aria-invalid]")) element.removeAttribute("aria-invalid");
}

/** Shows a problem object at its fields; returns what is to be said elsewhere, as it is about none of them. */
export function showProblem(problem) {
  clearErrors();
  const rest = [];
  for (const { field, message } of problem.errors ?? []) {
    const input = form.elements[field];
    const error = document.getElementById(`${field}-error`);
    if (!input || !error) rest.push(field === "prompt" ? t("never_seen") : `${field}: ${message}`);
    else {
      showError(input, message);
      input.focus();
    }
  }
  if (problem.errors?.length) return rest.join("; ");
  return [429, 503].includes(problem.status) ? t("busy") : (problem.detail ?? t("lost"));
}

/** A slider takes a value between its steps or beyond its end, until it is moved. */
function allow(slider, value) {
  slider.dataset.step ??= slider.step;
  slider.step = "any";
  if (value !== null && slider.name === "temperature") slider.max = Math.max(slider.max, value);
}

function showValues() {
  const { temperature, top_k, top_p, min_p } = sampling();
  const shown = { temperature, top_k, top_p, min_p };
  for (const name of SLIDERS) {
    const value = shown[name] === null ? t("off") : number(Number(form.elements[name].value), 2);
    document.getElementById(`${name}-value`).textContent = value;
  }
}

form.addEventListener("input", ({ target }) => {
  if (target.dataset.step) target.step = target.dataset.step;
  if (NUMBERS.includes(target.name)) showError(target, "");
  showValues();
});
form.addEventListener("change", ({ target }) => {
  if (NUMBERS.includes(target.name)) showError(target, read(target).message);
});
form.addEventListener("keydown", (event) => {
  const by = { ArrowUp: 1, ArrowDown: -1 }[event.key];
  if (by && !event.altKey && NUMBERS.includes(event.target.name)) step(event, by);
});
showValues();

/** The arrow keys count up and down, within the range. */
function step(event, by) {
  const { target } = event;
  const { value, message } = read(target);
  if (message || value === null) return;
  event.preventDefault();
  target.value = Math.max(Number(target.dataset.low), Math.min(Number(target.dataset.high), value + by));
  showError(target, "");
}
