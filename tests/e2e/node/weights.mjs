// What is said of files of weights: reads JSON {checkpoint, paths}, prints a message for each path, or null.

import { readFileSync } from "node:fs";
import { readWeights, WeightsError } from "../../../static/engine/weights.js";

const { checkpoint, paths } = JSON.parse(readFileSync(0, "utf8"));
const messages = paths.map((path) => {
	const bytes = new Uint8Array(readFileSync(path));
	try {
		readWeights(bytes.buffer, checkpoint);
		return null;
	} catch (error) {
		if (!(error instanceof WeightsError)) throw error;
		return error.message;
	}
});
process.stdout.write(JSON.stringify(messages));
