// Bits of the engine's functions: reads JSON {logarithms, exponentials, angles} of numbers, prints the results' bits in
// hex, one list for each function; sines and cosines follow each other.

import { readFileSync } from "node:fs";
import { exponential, logarithm, sineAndCosine } from "../../../static/engine/arithmetic.js";

function bits(value) {
	const view = new DataView(new ArrayBuffer(8));
	view.setFloat64(0, value);
	return view.getBigUint64(0).toString(16).padStart(16, "0");
}

const { logarithms, exponentials, angles } = JSON.parse(readFileSync(0, "utf8"));
const results = {
	logarithms: logarithms.map(logarithm),
	exponentials: exponentials.map(exponential),
	angles: angles.flatMap(sineAndCosine),
};
const hex = Object.entries(results).map(([name, values]) => [name, values.map(bits)]);
process.stdout.write(JSON.stringify(Object.fromEntries(hex)));
