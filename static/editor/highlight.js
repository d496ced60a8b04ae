// How sure the model was of a character, as one of six steps that colour and underline show; and the legend.

import { number, percent, t } from "../ui/i18n.js";

const bits = ({ prob }) => -Math.log2(prob);

// Each scale: what is measured, the bounds between its steps from the most expected on, and how a bound is written.
const SCALES = {
  probability: { of: ({ prob }) => -prob, bounds: [-0.9, -0.5, -0.2, -0.05, -0.01], label: (b) => `> ${percent(-b)}` },
  rank: { of: ({ rank }) => rank, bounds: [1, 2, 3, 5, 10], label: (b) => `≤ ${number(b)}` },
  surprise: { of: bits, bounds: [0.25, 1, 2, 4, 7], label: (b) => `≤ ${t("bits", { count: { value: b, digits: 2 } })}` },
  copied: { of: ({ run, at }) => run.copied[at] ?? 0, bounds: [9, 19, 29, 49, 99], label: (b) => `≤ ${number(b)}` },
  invented: { of: ({ run, at }) => (run.invented[at] == null ? 0 : 5), bounds: [0, 1, 2, 3, 4], label: null },
};

/** The step of a cell, from 0 (expected) to 5 (a surprise), by the scale named `mode`. */
export function step(cell, mode) {
  const { of, bounds } = SCALES[mode];
  const value = of(cell);
  const found = bounds.findIndex((bound) => value <= bound);
  return found === -1 ? bounds.length : found;
}

/** A function from a cell to its class names. */
export function lookOf(mode, vocabulary) {
  return (cell) => {
    if (!cell.run) return vocabulary.has(cell.c) ? "typed" : "typed unknown";
    return mode === "off" ? "written" : `written tint${step(cell, mode)}`;
  };
}

/** Shows the steps of the scale named `mode` in `list`. */
export function drawLegend(list, mode) {
  const scale = SCALES[mode];
  const steps = scale?.label ? [...scale.bounds.map(scale.label), t("below")] : [];
  const labels = mode === "invented" ? { 0: t("real_word"), 5: t("invented_word") } : { ...steps };
  list.replaceChildren(
    ...Object.entries(labels).map(([i, label]) => {
      const item = document.createElement("li");
      const swatch = item.appendChild(document.createElement("span"));
      swatch.className = `written tint${i}`;
      swatch.textContent = t("swatch");
      swatch.setAttribute("aria-hidden", "true");
      item.append(` ${label}`);
      return item;
    }),
  );
  list.hidden = !list.hasChildNodes();
}
