// The page's words in the reader's language, as the server put them into the page, and numbers as that language has them.

const table = JSON.parse(document.getElementById("texts").textContent);
const language = document.documentElement.lang;

/** The text named `key`, with each {name} in it replaced by a value. */
export function t(key, values = {}) {
  return table[key].replace(/\{(\w+)\}/g, (_, name) => values[name]);
}

/** A number with `least` to `most` digits after the point, and a minus sign as wide as a plus. */
export function number(value, most = 0, least = 0) {
  const digits = { minimumFractionDigits: least, maximumFractionDigits: most, signDisplay: "negative" };
  return value.toLocaleString(language, digits).replace("-", "−");
}

/** A probability from 0 to 1 as a percentage that is never rounded to a certainty. */
export function percent(probability) {
  const value = 100 * probability;
  if (value > 0 && value < 0.1) return `<${number(0.1, 1)}\u00a0%`;
  if (value < 100 && value > 99.9) return `>${number(99.9, 1)}\u00a0%`;
  return `${number(value, value < 10 ? 1 : 0)}\u00a0%`;
}

/** A character as it can be shown alone: spaces and line breaks are made visible. */
export function glyph(character) {
  return { " ": "␣", "\n": "↵", "\t": "⇥" }[character] ?? character;
}

/** A character as it can be said. */
export function spoken(character) {
  return { " ": t("space"), "\n": t("line_break") }[character] ?? character;
}

/** A rank in words. */
export function choice(rank) {
  return rank <= 3 ? t(`choice_${rank}`) : t("choice_n", { rank: number(rank) });
}
