// What the page shows, kept in the browser's tab so that a reload loses nothing.

import { typed } from "./document.js";

const STORAGE_KEY = "soliloquy-2"; // a number for the format that is stored under it

/**
 * Saves all texts, closed ones too, with what is known of each character; where the browser has no room for that, the
 * texts alone. Returns what was saved: "nothing" when it has no room for them either, or refuses.
 * @param {BranchTree} tree @returns {"all" | "texts" | "nothing"}
 */
export function save(tree) {
	const all = [...tree.branches, ...tree.closed];
	const closed = tree.closed.map(({ name }) => name);
	const rest = { active: tree.active.name, sideBySide: tree.sideBySide, closed };
	if (store({ ...rest, ...pack(all) })) return "all";
	const branches = all.map(({ name, parent, at, doc }) => ({
		name,
		parent,
		at,
		cells: doc.cells.map(({ c }) => c),
	}));
	if (store({ ...rest, branches, runs: [], requests: [] })) return "texts";
	store(null);
	return "nothing";
}

/** @param {StoredTexts | null} content */
function store(content) {
	try {
		if (content === null) sessionStorage.removeItem(STORAGE_KEY);
		else sessionStorage.setItem(STORAGE_KEY, JSON.stringify(content));
		return content !== null;
	} catch {
		return false; // full or forbidden
	}
}

/**
 * Texts with their written cells as numbers of runs and places in them, and the runs and requests by number.
 * @param {Branch[]} all @returns {Pick<StoredTexts, "branches" | "runs" | "requests">}
 */
function pack(all) {
	/** @type {Map<RequestRecord, number>} */
	const requests = new Map();
	/** @type {Map<Run, number>} */
	const runs = new Map();
	/** @type {(cell: WrittenCell) => [number, number]} */
	const stored = ({ run, at }) => [numberIn(runs, run), at];
	const branches = all.map(({ name, parent, at, doc }) => {
		const cells = doc.cells.map((cell) => (cell.run ? stored(cell) : cell.c));
		return { name, parent, at, cells };
	});
	for (const { request } of [...runs.keys()]) for (const run of request.runs) numberIn(runs, run);
	const packed = [...runs.keys()].map(({ request, cells, prefix, ...run }) => ({
		...run,
		alternatives: [],
		request: numberIn(requests, request),
		text: cells.map(({ c }) => c),
		prob: cells.map(({ prob }) => prob),
		rank: cells.map(({ rank }) => rank),
		entropy: cells.map(({ entropy }) => entropy),
	}));
	const kept = [...requests.keys()].map((request) => ({ ...request, runs: undefined, reports: null }));
	return { branches, runs: packed, requests: kept };
}

/**
 * The number of an item, the next one if it has none yet.
 * @template T @param {Map<T, number>} numbers @param {T} item
 */
function numberIn(numbers, item) {
	const known = numbers.get(item);
	if (known !== undefined) return known;
	numbers.set(item, numbers.size);
	return numbers.size - 1;
}

/**
 * What was saved, or null. What another checkpoint wrote is as if typed: this one knows nothing of it.
 * @param {string} checkpoint @returns {SavedTexts | null}
 */
export function load(checkpoint) {
	try {
		/** @type {StoredTexts | null} */
		const content = JSON.parse(sessionStorage.getItem(STORAGE_KEY) ?? "null");
		if (!content?.branches.length) return null;
		/** @type {RequestRecord[]} */
		const requests = content.requests.map((request) => ({ ...request, runs: [] }));
		const runs = content.runs.map(({ request: number, text, prob, rank, entropy, ...rest }) => {
			const request = requests[number];
			/** @type {Run} */
			const run = { ...rest, request, prefix: request.prefix, cells: [] };
			run.cells = text.map((c, at) =>
				Object.freeze({ c, run, at, prob: prob[at], rank: rank[at], entropy: entropy[at] }),
			);
			request.runs[run.sample] = run;
			return run;
		});
		const branches = content.branches.map(({ cells, ...branch }) => ({
			...branch,
			cells: cells.map((cell) => {
				if (typeof cell === "string") return typed(cell)[0];
				const [number, at] = cell;
				const written = runs[number].cells[at];
				return written.run.request.checkpoint === checkpoint ? written : typed(written.c)[0];
			}),
		}));
		return { ...content, branches };
	} catch {
		return null;
	}
}
