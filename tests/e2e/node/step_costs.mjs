// How many draft tokens of a probability pay after some steps: reads JSON {steps: [[rows, milliseconds], …],
// probability}, prints the number.

import { readFileSync } from "node:fs";
import { StepCosts } from "../../../static/engine/step_costs.js";

const MAX_TOKENS = 7;
const { steps, probability } = JSON.parse(readFileSync(0, "utf8"));
const costs = new StepCosts(0.35);
for (const [rows, milliseconds] of steps) costs.observe(rows, milliseconds);
let tokens = 0;
let expected = 1;
let allAccepted = probability;
while (tokens < MAX_TOKENS && costs.pays(tokens, expected, allAccepted)) {
	tokens += 1;
	expected += allAccepted;
	allAccepted *= probability;
}
process.stdout.write(JSON.stringify(tokens));
