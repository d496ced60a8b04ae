// Reports by the browser's code, in Node: `node report.mjs WEIGHTS INDEX` reads texts, a JSON list, and prints the report
// on each, without the bits of the model.

import { readFileSync } from "node:fs";
import { makeReport } from "../../../static/analysis/report.js";
import { TextIndex } from "../../../static/analysis/text_index.js";
import { readWeights } from "../../../static/engine/weights.js";

const [weightsFile, indexFile] = process.argv.slice(2).map((path) => new Uint8Array(readFileSync(path)).buffer);
const weights = readWeights(weightsFile);
const index = new TextIndex(indexFile, weights.checkpoint);
const texts = JSON.parse(readFileSync(0, "utf8"));
process.stdout.write(JSON.stringify(texts.map((text) => makeReport(text, index, weights, null))));
