// SHA-256 (FIPS 180-4). The browser's own is there on secure origins only, and a class may read the page by plain HTTP.

/** The first 32 bits of the fraction of each prime's square or cube root. @param {number} count @param {number} root */
function fractions(count, root) {
	const found = [];
	for (let n = 2; found.length < count; n++) {
		let isPrime = true;
		for (let divisor = 2; divisor * divisor <= n; divisor++) if (n % divisor === 0) isPrime = false;
		if (isPrime) found.push(fractionOfRoot(BigInt(n), BigInt(root)));
	}
	return found;
}

/** By whole numbers, since Math.cbrt may differ in its last bit. @param {bigint} n @param {bigint} root */
function fractionOfRoot(n, root) {
	const scaled = n << (32n * root);
	let low = 0n;
	let high = 1n << 40n;
	while (high - low > 1n) {
		const middle = (low + high) >> 1n;
		if (middle ** root <= scaled) low = middle;
		else high = middle;
	}
	return Number(low & 0xffffffffn) | 0;
}

const INITIAL = Int32Array.from(fractions(8, 2));
const ROUND_CONSTANTS = Int32Array.from(fractions(64, 3));
const BLOCK = 64; // bytes

/** The SHA-256 (hex) of some arrays of bytes, one after another. @param {Uint8Array[]} parts */
export function sha256(parts) {
	const state = INITIAL.slice();
	const schedule = new Int32Array(64);
	const block = new Uint8Array(BLOCK);
	let filled = 0;
	let length = 0;
	for (const part of parts) {
		length += part.length;
		let start = 0;
		while (start < part.length) {
			if (filled === 0 && part.length - start >= BLOCK) {
				addBlock(state, schedule, part, start);
				start += BLOCK;
				continue;
			}
			const taken = Math.min(BLOCK - filled, part.length - start);
			block.set(part.subarray(start, start + taken), filled);
			filled += taken;
			start += taken;
			if (filled === BLOCK) {
				addBlock(state, schedule, block, 0);
				filled = 0;
			}
		}
	}
	const padding = new Uint8Array(filled < 56 ? BLOCK : 2 * BLOCK);
	padding.set(block.subarray(0, filled));
	padding[filled] = 0x80;
	const bits = new DataView(padding.buffer, padding.length - 8);
	bits.setUint32(0, Math.floor(length / 2 ** 29));
	bits.setUint32(4, (length << 3) >>> 0);
	for (let start = 0; start < padding.length; start += BLOCK) addBlock(state, schedule, padding, start);
	return Array.from(state, (word) => (word >>> 0).toString(16).padStart(8, "0")).join("");
}

/** @param {Int32Array} state @param {Int32Array} schedule @param {Uint8Array} bytes @param {number} start */
function addBlock(state, schedule, bytes, start) {
	for (let i = 0; i < 16; i++) {
		const at = start + 4 * i;
		schedule[i] = (bytes[at] << 24) | (bytes[at + 1] << 16) | (bytes[at + 2] << 8) | bytes[at + 3];
	}
	for (let i = 16; i < 64; i++) {
		const x = schedule[i - 15];
		const y = schedule[i - 2];
		const sigma0 = ((x >>> 7) | (x << 25)) ^ ((x >>> 18) | (x << 14)) ^ (x >>> 3);
		const sigma1 = ((y >>> 17) | (y << 15)) ^ ((y >>> 19) | (y << 13)) ^ (y >>> 10);
		schedule[i] = schedule[i - 16] + sigma0 + schedule[i - 7] + sigma1;
	}
	// Names instead of arrays, which take twice as long: all weights are hashed before the first character.
	let a = state[0];
	let b = state[1];
	let c = state[2];
	let d = state[3];
	let e = state[4];
	let f = state[5];
	let g = state[6];
	let h = state[7];
	for (let i = 0; i < 64; i++) {
		const sum1 = ((e >>> 6) | (e << 26)) ^ ((e >>> 11) | (e << 21)) ^ ((e >>> 25) | (e << 7));
		const first = (h + sum1 + ((e & f) ^ (~e & g)) + ROUND_CONSTANTS[i] + schedule[i]) | 0;
		const sum0 = ((a >>> 2) | (a << 30)) ^ ((a >>> 13) | (a << 19)) ^ ((a >>> 22) | (a << 10));
		const second = (sum0 + ((a & b) ^ (a & c) ^ (b & c))) | 0;
		h = g;
		g = f;
		f = e;
		e = (d + first) | 0;
		d = c;
		c = b;
		b = a;
		a = (first + second) | 0;
	}
	state[0] += a;
	state[1] += b;
	state[2] += c;
	state[3] += d;
	state[4] += e;
	state[5] += f;
	state[6] += g;
	state[7] += h;
}
