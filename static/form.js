// The form: its values as a request, and errors shown at the field they are about.

const form = document.getElementById("form");
const prompt = document.getElementById("prompt");
const replaceButton = document.getElementById("replace");
const NUMBERS = ["temperature", "max_new_tokens", "num_samples", "top_k", "seed"];

let unknown = [];

/** The request in the form; an empty number is left to the server, an empty top k means all. */
export function request() {
  const body = { prompt: prompt.value };
  for (const name of NUMBERS) {
    const input = form.elements[name];
    if (input.validity.badInput) body[name] = "something that is not a number";
    else if (input.value !== "") body[name] = Number(input.value);
  }
  return { top_k: null, ...body };
}

export function clearErrors() {
  for (const element of form.querySelectorAll(".error")) element.textContent = "";
  for (const element of form.querySelectorAll("[aria-invalid]")) element.removeAttribute("aria-invalid");
  replaceButton.hidden = true;
}

/** Shows a problem object at its fields, or under the form when it is about none of them. */
export function showProblem(problem) {
  clearErrors();
  const errors = problem.errors ?? [];
  const homeless = errors.filter(({ field }) => !form.elements[field]);
  for (const { field, message } of errors) {
    const input = form.elements[field];
    if (!input) continue;
    input.setAttribute("aria-invalid", "true");
    document.getElementById(`${field}-error`).textContent = field === "prompt" ? promptError(problem, message) : message;
    input.focus();
  }
  if (errors.length === 0) showMessage(problem.detail);
  else if (homeless.length > 0) showMessage(homeless.map(({ field, message }) => `${field}: ${message}`).join("; "));
}

export function showMessage(text) {
  document.getElementById("form-error").textContent = text;
}

function promptError(problem, message) {
  unknown = problem.characters ?? [];
  if (unknown.length === 0) return message;
  replaceButton.hidden = false;
  const pairs = new Map(unknown.map(({ character, replacement }) => [character, replacement]));
  const list = [...pairs].map(([character, replacement]) => `${character} → ${replacement}`).join("   ");
  return `The model has never seen ${pairs.size === 1 ? "this character" : "these characters"}: ${list}`;
}

replaceButton.addEventListener("click", () => {
  const pairs = new Map(unknown.map(({ character, replacement }) => [character, replacement]));
  prompt.value = [...prompt.value].map((character) => pairs.get(character) ?? character).join("");
  clearErrors();
  prompt.focus();
});
