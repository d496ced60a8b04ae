// The logits of both networks after each id of a text: `node logits.mjs FILE` reads a JSON list of ids and prints, for
// each network, the SHA-256 of all its logits' bytes.

import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { ReferenceNetwork } from "../../../static/engine/reference.js";
import { WebAssemblyNetwork } from "../../../static/engine/webassembly.js";
import { readWeights } from "../../../static/engine/weights.js";

const weights = readWeights(new Uint8Array(readFileSync(process.argv[2])).buffer);
const code = readFileSync(new URL("../../../static/engine/network.wasm", import.meta.url));
const networks = [new ReferenceNetwork(weights), new WebAssemblyNetwork(weights, new WebAssembly.Module(code))];
const ids = JSON.parse(readFileSync(0, "utf8"));

function digest(network) {
	const hash = createHash("sha256");
	for (let start = 0; start < ids.length; start += network.maxRows) {
		const some = ids.slice(start, start + network.maxRows);
		for (const row of network.forward(some, some.length)) hash.update(new Uint8Array(row.slice().buffer));
	}
	return hash.digest("hex");
}
process.stdout.write(JSON.stringify(networks.map(digest)));
