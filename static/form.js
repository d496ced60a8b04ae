// The settings: sliders and numbers as a request's fields, and errors shown at the field they are about.

import { number, t } from "./texts.js";

const form = document.getElementById("form");
const SLIDERS = ["temperature", "top_k", "top_p", "min_p"];
const NUMBERS = ["max_new_tokens", "num_samples", "seed"];

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

/** The fields of a request, without the prompt; an empty number is left to the server. */
export function parameters() {
  const body = sampling();
  for (const name of NUMBERS) {
    const input = form.elements[name];
    if (input.validity.badInput) body[name] = "something that is not a number";
    else if (input.value !== "") body[name] = Number(input.value);
  }
  return body;
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
      input.setAttribute("aria-invalid", "true");
      const { rangeOverflow, rangeUnderflow, stepMismatch, badInput } = input.validity;
      const out = rangeOverflow || rangeUnderflow || stepMismatch || badInput;
      const [low, high] = [number(Number(input.min)), number(Number(input.max))];
      error.textContent = out ? t("out_of_range", { low, high }) : message;
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
  const shown = { temperature: number(temperature, 2), top_k, top_p, min_p };
  for (const name of SLIDERS) {
    const value = shown[name] === null ? t("off") : number(Number(form.elements[name].value), 2);
    document.getElementById(`${name}-value`).textContent = value;
  }
}

form.addEventListener("input", ({ target }) => {
  if (target.dataset.step) target.step = target.dataset.step;
  showValues();
});
showValues();
