// The model card: what is served here, how it was trained, and how good it is beside simpler models.

import { loss as lossOf, number, t } from "../ui/i18n.js";

const SVG = "http://www.w3.org/2000/svg";
const [WIDTH, HEIGHT, LEFT, BOTTOM] = [300, 160, 34, 22];

/** Fills the panel with the facts of /info. */
export function drawCard(panel, card) {
  const facts = [
    [t("card_checkpoint"), card.checkpoint],
    [t("card_parameters"), number(card.parameters)],
    [t("card_shape"), t("card_shape_value", { layers: card.n_layer, heads: card.n_head, width: card.n_embd })],
    [t("card_context"), t("card_context_value", { count: card.block_size })],
    [t("card_vocabulary"), t("card_vocabulary_value", { count: card.vocabulary_size })],
    card.dataset && [
      t("card_dataset"),
      t("card_dataset_value", { name: card.dataset.name, count: card.dataset.characters }),
    ],
    card.val_loss !== null && [
      t("card_loss"),
      t("card_loss_value", { nats: lossOf(card.val_loss), bits: lossOf(card.val_loss / Math.LN2) }),
    ],
    card.trained && [t("card_trained"), date(card.trained)],
    [t("card_device"), `${card.device}, ${card.numerics}`],
  ].filter(Boolean);
  const list = document.createElement("dl");
  for (const [name, value] of facts) {
    list.appendChild(document.createElement("dt")).textContent = name;
    list.appendChild(document.createElement("dd")).textContent = value;
  }
  panel.replaceChildren(list);
  if (card.baselines && card.val_loss !== null) panel.append(drawBaselines(card));
  if (card.curve?.length > 1) panel.append(drawCurve(card.curve));
}

function date(text) {
  return new Date(text).toLocaleDateString(document.documentElement.lang, { dateStyle: "long" });
}

/** Validation losses as bars, the model's last. */
function drawBaselines({ baselines, val_loss }) {
  const figure = document.createElement("figure");
  const list = figure.appendChild(document.createElement("ul"));
  list.className = "baselines";
  const others = Object.entries(baselines).sort(([, a], [, b]) => b - a);
  const all = [...others, [t("this_model"), val_loss]];
  const most = Math.max(...all.map(([, loss]) => loss));
  for (const [name, loss] of all) {
    const item = list.appendChild(document.createElement("li"));
    item.appendChild(document.createElement("span")).textContent = name === "uniform" ? t("uniform") : name;
    item.appendChild(document.createElement("i")).style.width = `${(45 * loss) / most}%`;
    item.append(` ${number(loss, 2)}`);
  }
  list.lastElementChild.className = "own";
  figure.appendChild(document.createElement("figcaption")).textContent = t("baselines_caption");
  return figure;
}

/** The losses over the steps of training, as SVG; with a mark at one step if given. */
export function drawCurve(curve, mark = null) {
  const figure = document.createElement("figure");
  const svg = figure.appendChild(make("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img" }));
  const last = curve.at(-1).step;
  const losses = curve.flatMap(({ train, val }) => [train, val]).filter((loss) => loss !== null);
  const [low, high] = [Math.min(...losses), Math.max(...losses)];
  const x = (step) => LEFT + ((WIDTH - LEFT - 8) * step) / last;
  const y = (loss) => 8 + ((HEIGHT - BOTTOM - 8) * (high - loss)) / (high - low || 1);
  svg.setAttribute("aria-label", t("curve_label", { from: lossOf(curve[0].val), to: lossOf(curve.at(-1).val), steps: last }));
  for (const loss of [low, (low + high) / 2, high]) {
    svg.append(make("line", { x1: LEFT, x2: WIDTH - 8, y1: y(loss), y2: y(loss), class: "grid" }));
    svg.append(make("text", { x: LEFT - 5, y: y(loss) + 4, "text-anchor": "end" }, number(loss, 1)));
  }
  svg.append(make("text", { x: LEFT, y: HEIGHT - 5 }, "0"));
  svg.append(make("text", { x: WIDTH - 8, y: HEIGHT - 5, "text-anchor": "end" }, t("steps", { count: last })));
  for (const name of ["train", "val"]) {
    const points = curve.filter((point) => point[name] !== null).map((point) => `${x(point.step)},${y(point[name])}`);
    svg.append(make("polyline", { points: points.join(" "), class: name }));
  }
  if (mark !== null) svg.append(make("line", { x1: x(mark), x2: x(mark), y1: 8, y2: HEIGHT - BOTTOM, class: "mark" }));
  figure.appendChild(document.createElement("figcaption")).textContent = t("curve_caption");
  return figure;
}

function make(name, attributes, text = "") {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.textContent = text;
  return element;
}
