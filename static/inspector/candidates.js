// What is shown under the glass: bars of what the model thinks and of what is drawn from, and the dice that chose.

import { luck, reshape, winner } from "./sampling.js";
import { choice, glyph, number, percent, spoken, t } from "../ui/i18n.js";

const MOST_DIGITS = 12; // of a score: what a double still holds
const ROWS = { true: 5, false: 10 }; // candidates shown to a finger, and to a mouse

/** The character, how likely it was, and who wrote it. */
export function drawTitle(cell, raw, ids) {
  const title = document.createElement("p");
  title.className = "title";
  const shown = title.appendChild(document.createElement("b"));
  shown.textContent = glyph(cell.c);
  const prob = cell.prob ?? raw?.[ids.get(cell.c)];
  if (prob === undefined) return title;
  const rank = cell.rank ?? 1 + raw.filter((p) => p > prob).length;
  const words = t("title", { percent: percent(prob), choice: choice(rank), bits: { value: -Math.log2(prob), digits: 1 } });
  title.append(` ${words}${cell.run ? "" : ` · ${t("typed")}`}`);
  return title;
}

/** What the model considered, each as a row that can be chosen, and the dice; `onChoose(character)` goes on with one. */
export function drawCandidates({ cell, raw, settings, characters, ids, onChoose }) {
  const noise = cell.run && luck(cell.run.seed, cell.run.sample, cell.at, raw.length);
  const shape = reshape(raw, { ...settings, temperature: settings.temperature || 1e-9 });
  const own = ids.get(cell.c);
  const best = noise ? winner(raw, settings, noise) : -1;
  const order = raw.map((_, id) => id).sort((a, b) => raw[b] - raw[a] || a - b);
  const shown = order.slice(0, ROWS[matchMedia("(pointer: coarse)").matches]);
  for (const id of [own, best]) if (id >= 0 && !shown.includes(id)) shown.push(id);
  const list = document.createElement("ul");
  list.setAttribute("aria-label", t("candidates"));
  const dice = noise && settings.temperature > 0 ? throwDice(shape.scores, noise, shown, best) : null;
  for (const id of shown) list.append(drawRow(id, { raw, shape, dice, chosen: id === own, wins: id === best, c: characters[id], onChoose }));
  const parts = [list];
  if (dice) parts.push(paragraph(t("dice"), "hint"));
  const equal = noise && raw.filter((p) => p === raw[best]).length > 1;
  if (dice ? dice.tie : equal) parts.push(paragraph(t("tie"), "hint"));
  if (noise && best !== own) {
    parts.push(paragraph(t(sameSettings(cell.run, settings) ? "near" : "flip", { c: glyph(characters[best]) }), "flip"));
  }
  const on = document.createElement("button");
  on.type = "button";
  on.className = "quiet";
  on.textContent = t("from_here");
  on.addEventListener("click", () => onChoose(""));
  parts.push(on);
  return parts;
}

/**
 * What each of the candidates `shown` has: opinion, luck and their sum, rounded to the fewest digits with which one sees
 * that `best` has more than all others; a tie if there is no such number of digits.
 */
export function throwDice(scores, noise, shown, best) {
  const most = Math.max(...scores);
  const rivals = shown.filter((id) => scores[id] > -Infinity);
  for (let digits = 1; digits <= MOST_DIGITS; digits++) {
    const unit = 10 ** digits;
    const opinion = (id) => Math.round(unit * (scores[id] - most));
    const luckOf = (id) => Math.round(unit * noise[id]);
    const sum = (id) => opinion(id) + luckOf(id); // in whole units, so that what is shown adds up
    if (rivals.some((id) => id !== best && sum(id) >= sum(best))) continue;
    return { tie: false, of: (id) => ({ digits, opinion: opinion(id) / unit, luck: luckOf(id) / unit, sum: sum(id) / unit }) };
  }
  return { tie: true, of: (id) => ({ digits: 1, opinion: scores[id] - most, luck: noise[id], sum: scores[id] - most + noise[id] }) };
}

function drawRow(id, { raw, shape, dice, chosen, wins, c, onChoose }) {
  const row = document.createElement("li");
  const button = row.appendChild(document.createElement("button"));
  button.type = "button";
  button.className = "candidate";
  button.dataset.id = String(id);
  const cut = shape.final[id] === 0;
  button.classList.toggle("cut", cut);
  button.classList.toggle("chosen", chosen);
  button.append(cellOf("glyph", glyph(c)), bars(raw[id], shape.final[id]), cellOf("percent", cut ? t("cut") : percent(shape.final[id])));
  let words = t("candidate", { c: spoken(c), raw: percent(raw[id]), final: cut ? t("cut") : percent(shape.final[id]) });
  if (dice) {
    const { digits, opinion, luck: chance, sum: total } = dice.of(id);
    const fixed = (value) => number(value, digits, digits);
    const sign = chance < 0 ? "−" : "+";
    const sum = cut ? t("cut") : `${fixed(opinion)} ${sign} ${fixed(Math.abs(chance))} = ${fixed(total)}`;
    button.append(cellOf("luck", cut ? "" : sum));
    words += `, ${sum}`;
  }
  button.append(cellOf("mark", wins ? "⚄" : chosen ? "•" : ""));
  if (wins) words += `, ${t("wins")}`;
  button.setAttribute("aria-label", words);
  button.title = words;
  button.addEventListener("click", () => onChoose(c));
  return row;
}

/** What was found of the word and the run that a cell is in. */
export function drawMarks({ run, at }) {
  const parts = [];
  const word = run?.words[run.invented[at]];
  if (word) {
    const likes = [word.begins_like, word.ends_like].filter(Boolean).map((like) => like.word);
    const key = likes.length ? "invented_like" : "invented_alone";
    parts.push(paragraph(t(key, { word: word.word, likes: [...new Set(likes)].join(" + ") }), "hint"));
  }
  if (run?.copied[at]) parts.push(paragraph(t("copied_run", { length: run.copied[at] }), "hint"));
  return parts;
}

function sameSettings(run, settings) {
  return ["temperature", "top_k", "top_p", "min_p"].every((name) => {
    const [a, b] = [run.parameters[name], settings[name]];
    return a === b || (name === "top_k" && (a ?? Infinity) === (b ?? Infinity));
  });
}

/** Two bars, one over the other: what the model thinks, and what is drawn from. */
function bars(raw, final) {
  const box = cellOf("bars", "");
  for (const [name, value] of [["raw", raw], ["final", final]]) {
    box.appendChild(cellOf(name, "")).style.width = `${100 * value}%`;
  }
  return box;
}

function cellOf(name, text) {
  const element = document.createElement("span");
  element.className = name;
  element.textContent = text;
  return element;
}

export function paragraph(text, name) {
  const element = document.createElement("p");
  element.className = name;
  element.textContent = text;
  return element;
}
