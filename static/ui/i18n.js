// The page's words in the reader's language, as the server put them into the page, and numbers as that language has them.

import { nameOf } from "./character_names.js";

const table = JSON.parse(document.getElementById("texts").textContent);
const language = document.documentElement.lang;
const HOLE = /\{(\w+)((?:\|[^|}]*)*)\}/g;

/**
 * The text named `key`, with each {name} in it replaced by a value: words, a whole number, or {value, digits}.
 * {name|character|characters} becomes the form of a word that goes with that number: one and other, or one, many and
 * other where a language (Spanish: 1.000.000 de caracteres) has three.
 */
export function t(key, values = {}) {
  return table[key].replace(HOLE, (_, name, forms) => {
    const given = values[name] ?? "";
    const { value, digits = 0 } = typeof given === "number" ? { value: given } : given;
    if (forms) return formOf(forms.slice(1).split("|"), value, digits);
    return value === undefined ? given : number(value, digits);
  });
}

/** Whether there is a text named `key`. */
export function has(key) {
  return key in table;
}

function formOf(forms, value, digits) {
  const category = new Intl.PluralRules(language, { maximumFractionDigits: digits }).select(value);
  if (category === "one") return forms[0];
  return category === "many" && forms.length === 3 ? forms[1] : forms.at(-1);
}

/** A number with `least` to `most` digits after the point, and a minus sign as wide as a plus. */
export function number(value, most = 0, least = 0) {
  const digits = { minimumFractionDigits: least, maximumFractionDigits: most, signDisplay: "negative" };
  return value.toLocaleString(language, digits).replace("-", "−");
}

/** A loss, in nats or bits: two digits, as many as different ways to compute it (formats, machines) agree on. */
export function loss(value) {
  return { value, digits: 2 };
}

/** A probability from 0 to 1 as a percentage that is never rounded to a certainty. */
export function percent(probability) {
  const value = 100 * probability;
  if (value > 0 && value < 0.1) return `<${number(0.1, 1)}\u00a0%`;
  if (value < 100 && value > 99.9) return `>${number(99.9, 1)}\u00a0%`;
  return `${number(value, value < 10 ? 1 : 0)}\u00a0%`;
}

/** A character as it can be shown alone: spaces, line breaks and what else cannot be seen are made visible. */
export function glyph(character) {
  return { " ": "␣", "\n": "↵", "\t": "⇥" }[character] ?? nameOf(character) ?? character;
}

/** A character as it can be said. */
export function spoken(character) {
  return { " ": t("space"), "\n": t("line_break") }[character] ?? nameOf(character) ?? character;
}

/** A rank in words. */
export function choice(rank) {
  return rank <= 3 ? t(`choice_${rank}`) : t("choice_n", { rank });
}
