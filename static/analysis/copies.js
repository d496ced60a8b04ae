// How much of a text stands word for word in the training text, by filters of that text's substrings: the same numbers as
// model/analysis/overlap.py and fuse_filter.py, which explain them.

const MASK = (1n << 64n) - 1n;

/** SplitMix64's finaliser. @param {bigint} value */
function mix64(value) {
	let mixed = ((value ^ (value >> 30n)) * 0xbf58476d1ce4e5b9n) & MASK;
	mixed = ((mixed ^ (mixed >> 27n)) * 0x94d049bb133111ebn) & MASK;
	return mixed ^ (mixed >> 31n);
}

/** @param {bigint} base @param {number} exponent */
function power(base, exponent) {
	let result = 1n;
	for (let i = 0; i < exponent; i++) result = (result * base) & MASK;
	return result;
}

/** The filter of all substrings of one length, at multiples of its stride. */
class Filter {
	/** @param {string[]} row of `FILTER_DTYPE` @param {Uint8Array} cells of all filters @param {number} first cell @param {bigint} base */
	constructor([length, stride, segmentLength, segmentCount, seed], cells, first, base) {
		this.length = Number(length);
		this.stride = Number(stride);
		this.power = power(base, this.length);
		this._segmentLength = Number(segmentLength);
		this._segmentCount = Number(segmentCount);
		this.size = this._segmentCount > 0 ? (this._segmentCount + 2) * this._segmentLength : 0;
		this._seed = BigInt.asUintN(64, BigInt(seed));
		this._cells = cells.subarray(first, first + this.size);
	}

	/** Whether a substring with this rolling hash was put in; one of 256 others seems to be, too. @param {bigint} rollingHash */
	has(rollingHash) {
		if (this.size === 0) return false;
		const hashed = mix64((mix64(rollingHash) + this._seed) & MASK);
		const high = hashed >> 32n;
		const low = Number(hashed & 0xffffffffn);
		const mask = this._segmentLength - 1;
		const first = Number((high * BigInt(this._segmentLength * this._segmentCount)) >> 32n);
		const second = (first + this._segmentLength) ^ (Number((hashed >> 18n) & 0xffffffffn) & mask);
		const third = (first + 2 * this._segmentLength) ^ (low & mask);
		const check = (low ^ Number(high)) & 255;
		return check === (this._cells[first] ^ this._cells[second] ^ this._cells[third]);
	}
}

/** Which substrings the training text has. */
export class CopyIndex {
	/** @param {string} salt @param {string[][]} rows of filters, by ascending length @param {Uint8Array} cells of all */
	constructor(salt, rows, cells) {
		this._salt = BigInt(salt);
		this._base = mix64(~this._salt & MASK) | 1n;
		/** @type {Filter[]} */
		this._filters = [];
		let first = 0;
		for (const row of rows) {
			const filter = new Filter(row, cells, first, this._base);
			this._filters.push(filter);
			first += filter.size;
		}
		this.shortest = Math.min(...this._filters.map(({ length, stride }) => length + stride - 1));
	}

	/** For each character, the length of the longest run that ends there; 0 if below `shortest`. @param {readonly string[]} characters */
	lengths(characters) {
		const hashes = characters.map((c) =>
			mix64((this._salt + BigInt(/** @type {number} */ (c.codePointAt(0)))) & MASK),
		);
		const rolling = this._filters.map(() => 0n);
		// By filter and residue modulo its stride, the last position whose substring was no member.
		const misses = this._filters.map(({ length, stride }) => {
			const last = new Array(stride);
			for (let position = length - 1 - stride; position < length - 1; position++) {
				last[((position % stride) + stride) % stride] = position;
			}
			return last;
		});
		return hashes.map((hash, position) => {
			let run = position + 1;
			for (const [k, filter] of this._filters.entries()) {
				const { length, stride } = filter;
				rolling[k] = (rolling[k] * this._base + hash) & MASK;
				if (position >= length) rolling[k] = (rolling[k] - filter.power * hashes[position - length]) & MASK;
				const isMember = run >= length && filter.has(rolling[k]); // else a shorter filter has ruled it out
				if (!isMember && position >= length - 1) misses[k][position % stride] = position;
				run = Math.min(run, length - 1 + position - Math.min(position, ...misses[k]));
			}
			return run >= this.shortest ? run : 0;
		});
	}
}

/** Runs of `minLength` characters or more that are no part of a longer one, by their ends. @param {number[]} lengths @param {number} minLength */
export function findRuns(lengths, minLength) {
	/** @type {Span[]} */
	const runs = [];
	lengths.forEach((length, i) => {
		const continues = i + 1 < lengths.length && lengths[i + 1] > length;
		if (length >= Math.max(1, minLength) && !continues) runs.push({ start: i - length + 1, end: i + 1 });
	});
	return runs;
}

/** The share of characters inside runs of `minLength` or more. @param {number[]} lengths @param {number} minLength */
export function shareInside(lengths, minLength) {
	if (lengths.length === 0) return 0;
	const edges = new Array(lengths.length + 1).fill(0);
	for (const { start, end } of findRuns(lengths, minLength)) {
		edges[start] += 1;
		edges[end] -= 1;
	}
	let open = 0;
	let inside = 0;
	for (let i = 0; i < lengths.length; i++) {
		open += edges[i];
		if (open > 0) inside += 1;
	}
	return inside / lengths.length;
}

/** The longest run, the longest of the rest that does not overlap it, and so on; in the text's order. @param {Span[]} runs */
export function nonOverlapping(runs) {
	const lengthOf = (/** @type {Span} */ { start, end }) => end - start;
	const ordered = [...runs].sort((a, b) => lengthOf(b) - lengthOf(a) || a.start - b.start);
	/** @type {Set<number>} */
	const covered = new Set();
	/** @type {Span[]} */
	const kept = [];
	for (const run of ordered) {
		if (covered.has(run.start) || covered.has(run.end - 1)) continue;
		kept.push(run);
		for (let i = run.start; i < run.end; i++) covered.add(i);
	}
	return kept.sort((a, b) => a.start - b.start);
}

/** The first of the longest runs, or null. @param {number[]} lengths @returns {Span | null} */
export function longestRun(lengths) {
	const longest = lengths.reduce((most, length) => Math.max(most, length), 0);
	if (longest === 0) return null;
	const end = lengths.indexOf(longest);
	return { start: end - longest + 1, end: end + 1 };
}
