// The types that the page's modules share, known in all of them without an import. Browsers never load this file:
// `npm run types` checks the modules against it.

/* The text */

/** A character that someone typed. */
interface TypedCell {
	readonly c: string;
	readonly run?: undefined;
	readonly at?: undefined;
	readonly prob?: undefined;
	readonly rank?: undefined;
}

/** A character that the model wrote: the `at`th of a run, with its probability, rank and entropy (bits). */
interface WrittenCell {
	readonly c: string;
	readonly run: Run;
	readonly at: number;
	readonly prob: number;
	readonly rank: number;
	readonly entropy: number;
}

/** One character of a text and what is known of it. Cells never change, so forks and histories share them. */
type Cell = TypedCell | WrittenCell;

/** What one sample of one request wrote. */
interface Run {
	request: RequestRecord;
	prefix: string;
	seed: number;
	sample: number;
	parameters: Sampling;
	cells: WrittenCell[];
	finish: string | null;
	/** How many of the cells were looked up in what the model read, for the two fields below. */
	lookedUp: number;
	/** By cell: the length of the longest copy that runs through it. */
	copied: number[];
	words: InventedWord[];
	/** By cell: the likeliest characters there, if they were asked for. */
	alternatives: { char: string; prob: number }[][];
	/** By cell: the number in `words` of the invented word that it is in. */
	invented: number[];
}

/** A request, and what came of it. */
interface RequestRecord {
	/** All the text that the request continues. */
	prefix: string;
	/** The length of `prefix` in characters: the first cell of each run has this index. */
	start: number;
	/** The fields that were sent, without the prompt. */
	parameters: Settings;
	/** The server's choice until it has answered, if null. */
	seed: number | null;
	checkpoint: string | null;
	numerics: string | null;
	receipt: Receipt | null;
	timing: Timing | null;
	/** One for each run, once it is written. */
	reports: Report[] | null;
	runs: Run[];
}

/** A change of a document: `inserted` has taken the place of the cells from `start` to `end`. */
interface Change {
	start: number;
	end: number;
	inserted: Cell[];
	/** The run that the model goes on with; null for an edit by hand, undo and redo. */
	run: Run | null;
}

/** One step of a document's history. Edits of the same `kind` may merge. */
interface Edit {
	start: number;
	removed: Cell[];
	inserted: Cell[];
	kind: EditKind;
	time: number;
}

/** How fast text appears: one character at a key, 8 or 30 a second, or as it comes. */
type Speed = "step" | "slow" | "reading" | "full";

type EditKind = "edit" | "typing" | Run;

/** A text on the page: it left the text named `parent` at the cell `at`. */
interface Branch {
	name: string;
	parent: string | null;
	at: number;
	doc: TextDocument;
	/** The element that is shown. */
	page: HTMLElement;
	editor: Editor;
}

type BranchTree = import("./editor/branches.js").BranchTree;
/** What written cells can be added to. */
type Growing = Pick<Editor, "append">;

type Editor = import("./editor/editor.js").Editor;
type GenerationRequest = import("./api/generation.js").GenerationRequest;
type Lens = import("./ui/lens.js").Lens;
type InspectMode = import("./inspector/inspect_mode.js").InspectMode;
type Inspector = import("./inspector/popover.js").Inspector;
type Session = import("./session.js").Session;
type TextDocument = import("./editor/document.js").TextDocument;

/** Cells from `start` to `end`. */
interface Span {
	start: number;
	end: number;
}

/** Gives a cell's class names. */
type Classify = (cell: Cell) => string;

type Vocabulary = Pick<import("./editor/unknown_characters.js").UnknownCharacters, "has">;

/** The texts of a tab, as storage.js loads them. */
interface SavedTexts {
	active: string;
	sideBySide: boolean;
	/** Names of those that are closed. */
	closed: string[];
	branches: { name: string; parent: string | null; at: number; cells: Cell[] }[];
}

/** As storage.js writes it: a written cell is [number of its run, its place there]. */
interface StoredTexts extends Omit<SavedTexts, "branches"> {
	branches: { name: string; parent: string | null; at: number; cells: (string | [number, number])[] }[];
	runs: (Omit<Run, "request" | "prefix" | "cells"> & {
		request: number;
		text: string[];
		prob: number[];
		rank: number[];
		entropy: number[];
	})[];
	requests: Omit<RequestRecord, "runs">[];
}

/* Verifying */

/** What is verified: what a receipt or a link says of a request and its samples. */
interface Subject {
	isLink: boolean;
	/** An identity, whole or its first 12 digits. */
	checkpoint: string;
	numerics: string;
	seed: number;
	parameters: EngineParameters;
	samples: SubjectSample[];
}

/** A sample's SHA-256 and perhaps its text, of a receipt; or its fingerprints, of a link. */
interface SubjectSample {
	sha256?: string;
	text?: string;
	prints?: Fingerprints;
}

/**
 * How a sample that was written again compares: where it differs (`at`, -1 for nowhere or unknown), exactly or about;
 * "other" where that is not known, "digest" where the text is the same but not its digest.
 */
interface Comparison {
	text: string;
	expected?: string;
	verdict: "identical" | "differs" | "about" | "other" | "digest";
	at: number;
}

/* Settings */

/** How a character is drawn; null where a filter cuts nothing off. */
interface Sampling {
	temperature: number;
	top_k: number | null;
	top_p: number | null;
	min_p: number | null;
}

/** The fields of a request, without the prompt. */
interface Settings extends Sampling {
	max_new_tokens?: number;
	num_samples?: number;
	seed?: number | null;
}

/** What the settings form can be filled with; numbers may stand there as they were typed. */
type FormValues = { [Name in keyof Settings]?: Settings[Name] | string };

/** How the page is looked at, kept over a reload. */
interface View {
	tint?: string;
	/** The panel of the lens that is shown, "" if none. */
	panel?: string;
	/** Whether the settings that are rarely needed are shown. */
	drawer?: boolean;
	/** Whether lines under the characters show what the colours show. */
	underlines?: boolean;
	speed?: string;
	settings?: FormValues;
	/** When it was kept, in milliseconds. */
	time: number;
}

/* The server's answers: app/api/answers.py, score.py and report.py own them */

/** A request of `/score`: a text's characters from `first` on, after a prompt. */
interface ScoreBody {
	prompt: string;
	text: string;
	first: number;
	alternatives: number;
}

/** What `/info` says; the page begins without what its panel about the model alone shows (app/web/page.py). */
interface ModelCard {
	/** Whether the page stands alone (app/export.py); absent where a server sends it. */
	serverless?: boolean;
	checkpoint: string;
	identity: string;
	parameters: number;
	block_size: number;
	vocabulary: string;
	vocabulary_size: number;
	default_prompt: string;
	replacements: Record<string, string>;
	n_layer: number;
	n_head: number;
	n_embd: number;
	device: string;
	numerics: string;
	dataset: { name: string; characters: number } | null;
	val_loss: number | null;
	baselines: Record<string, number> | null;
	curve: CurvePoint[];
	trained: string | null;
	report: boolean;
	snapshots: number[];
}

/** Losses in nats per character. */
interface CurvePoint {
	step: number;
	train: number | null;
	val: number | null;
}

/** A character with its probability, rank and entropy (bits), as `details` asks for it. */
interface Character {
	char: string;
	prob: number;
	rank: number;
	entropy: number;
	alternatives: { char: string; prob: number }[];
}

interface InventedWord {
	word: string;
	start: number;
	end: number;
	begins_like: { word: string } | null;
	ends_like: { word: string } | null;
}

interface StartData {
	id: string;
	checkpoint: string;
	/** The model card's where it is not given. */
	numerics?: string;
	seed: number;
	parameters: Sampling & { num_samples: number; prompt: string };
}

interface WaitingData {
	/** In the queue for a slot; 1 is the next. */
	place: number;
}

interface TextData {
	sample: number;
	/** How many characters of this sample came before. */
	index: number;
	text: string;
	chars: Character[];
	copied?: number[];
	invented?: InventedWord[];
}

interface EndData {
	sample: number;
	finish_reason: "length" | "stop";
}

interface DoneData {
	timing: Timing;
	receipt: Receipt;
	reports?: Report[];
}

interface Timing {
	characters_per_second: number;
}

interface Receipt {
	samples: { sha256: string }[];
}

/** An event of a stream of `/generate`; `error` is thrown instead, as a ProblemError. */
type ServerEvent = { id: string } & (
	| { event: "start"; data: StartData }
	| { event: "waiting"; data: WaitingData }
	| { event: "text"; data: TextData }
	| { event: "end"; data: EndData }
	| { event: "done"; data: DoneData }
);

/** An event as it is parsed. */
interface RawEvent {
	event: string;
	data: string;
	id: string;
}

/** A refusal (RFC 9457). */
interface Problem {
	status: number;
	title?: string;
	detail?: string;
	errors?: { field: string; message: string }[];
	/** Seconds after which another request may be answered. */
	retry_after?: number;
}

interface Report {
	characters: number;
	sentences: Record<string, ReportSentence>;
	figures: Record<string, ReportFigure>;
	words: { count: number; invented: InventedWord[] };
	held_out: { characters: number; pieces: number } | null;
	copies: { shortest: number; lengths: number[]; runs: (Span & { place: number | null })[] };
	structure: Pick<Structure, "speakers" | "speeches" | "lines" | "form" | "matched" | "unmatched">;
	loops: (Span & { period: number; count: number | null })[];
}

interface ReportSentence {
	key: string;
	values: Record<string, number>;
	english: string;
}

interface ReportFigure {
	value: number | null;
	held_out: { mean: number; low: number | null; high: number | null } | null;
	verdict?: string | null;
}

/** The snapshots of a page without a server. */
interface SnapshotFile extends Omit<SnapshotAnswer, "snapshots"> {
	snapshots: { step: number; identity: string; default_prompt: string }[];
}

interface SnapshotAnswer {
	parameters: number;
	curve: CurvePoint[];
	snapshots: { step: number; text: string }[];
}

/* Parts of the page */

/** How a POST of `stream` goes. */
interface StreamOptions {
	/** How many of the likeliest characters come with each. */
	alternatives?: number;
	signal: AbortSignal;
	/** Whether a server that is busy gets a second request. */
	retryBusy: boolean;
	/** Called before each new attempt, when the connection was lost or the server is busy. */
	onWait: (milliseconds: number, busy: boolean) => void;
}

/** How a request is written. */
interface GenerateOptions extends StreamOptions {
	/** Whether it is written on this device from its beginning. */
	here: boolean;
	/** Aborted when the text is to go on on this device. */
	leave?: AbortSignal;
}

/** What `generate` yields: the server begins or goes on, the request waits in its queue, or cells came in a run. */
type GenerationEvent =
	| { type: "start" }
	| { type: "waiting"; place: number }
	| {
			type: "text";
			run: Run;
			cells: WrittenCell[];
			/** The first cell of the run that is now known to be copied or invented; Infinity if none. */
			marked: number;
	  };

/** A request that is being written. */
interface Writing {
	request: GenerationRequest;
	controller: AbortController;
	/** Leaves the server, to go on on this device. */
	leaving: AbortController;
	/** Whether it is a recording, which is only shown again. */
	recorded: boolean;
	/** Empty until the server begins to answer. */
	branches: Map<Run, Branch>;
	/** Milliseconds, as of `performance.now()`. */
	started: number;
	/** Seconds to the first character. */
	first: number | null;
	/** Whether the connection was lost, or the server is busy: it is tried again after a while. */
	lost: boolean;
	/** The place in the server's queue, 0 when the text is being written. */
	place: number;
}

/** A text that the server has written before. */
interface Recording {
	prompt: string;
	parameters: Settings;
	events: ServerEvent[];
}

interface SessionOptions {
	card: ModelCard;
	tree: BranchTree;
	/** Those of the form. */
	settings: () => Settings;
	/** Whether texts are written on this device. */
	here: () => boolean;
	/** Whether the colours show what is copied or invented, which is known of a character only after it was written. */
	showsMarks: () => boolean;
	/** Called when a character was shown, or has come and waits to be. */
	onShow: () => void;
	/** Called when the state changes. */
	onState: (state: State, values?: StateValues | null) => void;
	/** Called when nothing more comes. */
	onProblem: (error: unknown) => void;
}

interface BranchTreeOptions {
	tabs: HTMLElement;
	pages: HTMLElement;
	/** How many characters the model sees. */
	windowSize: number;
	classify: Classify;
	/** Called before an edit by hand; returns whether that stopped the model. */
	onEdit: (branch: Branch) => boolean;
	/** Called after each change of a text. */
	onText: (branch: Branch, change: Change) => void;
	/** Called when a text was taken off the page. */
	onClose: (branch: Branch) => void;
	/** Called when texts come, go or become active. */
	onChange: () => void;
	/** Has the model go on with one of several texts. */
	onContinue: (branch: Branch) => void;
}

interface EditorOptions {
	classify: Classify;
	/** Called before each edit by hand; returns whether that stopped the model, which then has written all that it had. */
	onEdit: () => boolean;
}

interface InspectModeOptions {
	/** Whether a mouse at rest may show a character. */
	mayHover: () => boolean;
	tree: BranchTree;
	inspector: Inspector;
	/** Switches the mode. */
	button: HTMLButtonElement;
	pages: HTMLElement;
}

/** What shows why a letter was written. */
interface Glass {
	inspector: Inspector;
	shownLetter: typeof import("./inspector/shown_letter.js");
	inspectMode: InspectMode;
	typeAndSee: import("./play/type_and_see.js").TypeAndSee;
	nextLetter: import("./ui/next_letter.js").NextLetter;
}

interface InspectorOptions {
	card: ModelCard;
	/** Called when a character is shown, or none any more. */
	onShow: (pinned: boolean) => void;
	settings: () => Sampling;
	/** Asks the server, or this device. */
	score: (body: ScoreBody, signal: AbortSignal) => Promise<{ chars: Character[] }>;
	/** Forks. */
	onChoose: (branch: Branch, index: number, character: string) => void;
}

interface CandidatesOptions {
	cell: Cell;
	/** The model's probabilities by character id. */
	raw: number[];
	settings: Sampling;
	characters: string[];
	ids: Map<string, number>;
	/** Whether all candidates are shown, not only the likeliest. */
	expanded: boolean;
	/** Whether the dice fall, as they do when a character is looked at first. */
	rolling: boolean;
	onExpand: () => void;
	/** Forks with a character; with the empty text, with another seed. */
	onChoose: (character: string) => void;
}

/** One candidate: its id and character, probabilities, score, whether it was written and whether it is drawn. */
interface CandidateRow {
	id: number;
	c: string;
	raw: number;
	final: number;
	parts: ScoreParts | null;
	chosen: boolean;
	wins: boolean;
	rolling: boolean;
	onChoose: (character: string) => void;
}

interface ShareOptions {
	card: ModelCard;
	tree: BranchTree;
	session: Session;
	/** How the text is coloured. */
	classify: () => Classify;
}

/** What a picture of a text shows. */
interface PictureContent {
	cells: Cell[];
	/** What wrote the last of it. */
	request: RequestRecord;
	classify: Classify;
	/** What writes here, in a sentence. */
	lead: string;
	/** Those of the QR code: 1 for a dark module; none without a code. */
	rows: string[];
}

/* Play */

interface PlayOptions {
	card: ModelCard;
	/** Those of the form. */
	settings: () => Settings;
	/** How the text of the page is coloured. */
	classify: () => Classify;
	/** Characters that the model can read, of the page's text or a recording. */
	characters: () => Promise<string[]>;
	/** What the page's text began with, and its luck. */
	beginning: () => { prefix: string; seed: number };
	/** Puts texts on the page. */
	onKeep: (texts: Cell[][]) => void;
}

type GuessOptions = Pick<PlayOptions, "card" | "characters">;
type CompareOptions = Omit<PlayOptions, "characters">;

/** A game of guessing, while it is played. */
interface Game {
	characters: string[];
	/** Where the letters stand that are asked for. */
	places: number[];
	/** What the model expected there. */
	expected: { likeliest: [string, number][]; probability: number; bits: number }[];
	round: number;
	/** The sums so far. */
	bits: { player: number; model: number };
	/** How well each bet did: "hit", "near" or "miss". */
	marks: string[];
}

/** One of two texts that are compared. */
interface Side {
	element: HTMLElement;
	beginning: HTMLTextAreaElement;
	slider: HTMLInputElement;
	root: HTMLElement;
	/** The fields as they were when writing began. */
	prefix: string;
	temperature: number;
	doc: TextDocument;
	lines: import("./editor/line_view.js").LineView | null;
	run: Run | null;
}

interface TypeAndSeeOptions {
	card: ModelCard;
	active: () => Branch;
	/** Whether there is room for it, and nothing else to be shown. */
	mayShow: () => boolean;
	/** Called when it is shown or hidden. */
	onShow: () => void;
	/** Goes on with a letter. */
	onChoose: (index: number, character: string) => void;
}

interface PanelsOptions {
	lens: Lens;
	card: ModelCard;
	tree: BranchTree;
	session: Session;
	/** How the text is coloured. */
	classify: () => Classify;
}

interface StatusOptions {
	state: HTMLElement;
	text: HTMLElement;
	seed: HTMLButtonElement;
	/** Those of the request that is being written. */
	figures: () => Figures | null;
}

/** A scale of colours: what it measures, the bounds between its steps from the most expected on, a bound's label. */
interface Scale {
	valueOf: (cell: WrittenCell) => number;
	bounds: number[];
	label: ((bound: number) => string) | null;
	/** The label of what is beyond the last bound. */
	last: () => string;
}

type State =
	"playing" | "idle" | "waiting" | "queued" | "writing" | "lost" | "busy" | "stopped" | "failed" | "done";

/** How a request goes; `first` is the time to the first character, both times in seconds. */
interface Figures {
	count: number;
	speed: number;
	first: number | null;
	seed: number | null;
}

/** What comes with a state: figures when it has ended, the seconds to wait while the connection is lost, the place in the queue. */
type StateValues = Partial<Figures> & { seconds?: number; place?: number };

/** What a link holds. */
interface SharedText {
	checkpoint: string;
	numerics: string;
	seed: number;
	prefix: string;
	parameters: Partial<Settings>;
	samples: Fingerprints[];
}

/** Hashes of a text's pieces, of `size` characters each. */
interface Fingerprints {
	length: number;
	size: number;
	pieces: number[];
}

/** A value in a text of the page: words, a whole number, or a number with digits after the point. */
type TextValue = string | number | { value: number; digits: number };

/** The character that is inspected. */
interface Inspected {
	branch: Branch;
	index: number;
	cell: Cell;
	/** Whether it stays until it is closed. */
	pinned: boolean;
}

/** A candidate's log-probability below the likeliest one's, its noise, and their sum. */
interface ScoreParts {
	digits: number;
	opinion: number;
	noise: number;
	sum: number;
}

interface Scores {
	/** Whether no number of digits tells the winner from the others. */
	tie: boolean;
	of: (id: number) => ScoreParts;
}

/** Elements by id, as templates/index.html has them. */
interface PageElements {
	announcer: HTMLElement;
	card: HTMLElement;
	"card-panel": HTMLElement;
	colours: HTMLElement;
	"continue-all": HTMLButtonElement;
	counters: HTMLElement;
	drawer: HTMLElement;
	edited: HTMLElement;
	error: HTMLElement;
	examples: HTMLElement;
	figures: HTMLElement;
	form: HTMLFormElement;
	"go-on-here": HTMLButtonElement;
	growth: HTMLElement | null;
	"here-progress": HTMLProgressElement;
	help: HTMLDialogElement;
	"help-open": HTMLButtonElement;
	inspector: HTMLElement;
	key: HTMLDialogElement | null;
	"last-seed": HTMLButtonElement;
	legend: HTMLElement;
	lens: HTMLElement;
	"lens-close": HTMLButtonElement;
	"lens-temperature": HTMLInputElement;
	letter: HTMLElement;
	"letter-empty": HTMLElement;
	look: HTMLButtonElement;
	measure: HTMLSelectElement;
	more: HTMLButtonElement;
	new: HTMLButtonElement;
	pages: HTMLElement;
	pill: HTMLButtonElement;
	"play-open": HTMLButtonElement;
	redo: HTMLButtonElement;
	reopen: HTMLButtonElement;
	replace: HTMLButtonElement;
	report: HTMLElement | null;
	"report-button": HTMLButtonElement;
	"report-panel": HTMLElement;
	sentence: HTMLElement;
	share: HTMLDialogElement;
	"share-open": HTMLButtonElement;
	"side-by-side": HTMLButtonElement;
	speed: HTMLSelectElement;
	state: HTMLElement;
	stop: HTMLButtonElement;
	tabs: HTMLElement;
	texts: HTMLElement;
	underlines: HTMLInputElement;
	undo: HTMLButtonElement;
	unknown: HTMLElement;
	"unknown-list": HTMLElement;
	verdict: HTMLElement;
	verify: HTMLElement | HTMLDialogElement | null;
	"verify-open": HTMLAnchorElement;
	"what-if": HTMLElement;
	write: HTMLButtonElement;
	"write-caret": HTMLButtonElement;
	"write-here": HTMLInputElement;
}

/** The first element under `root` that a selector finds; it must be there. */
interface FindElement {
	<Name extends keyof HTMLElementTagNameMap>(root: ParentNode, selector: Name): HTMLElementTagNameMap[Name];
	<Found extends HTMLElement = HTMLElement>(root: ParentNode, selector: string): Found;
}

/** A new element with a class and a text. */
type MakeElement = <Name extends keyof HTMLElementTagNameMap>(
	name: Name,
	className?: string,
	text?: string,
) => HTMLElementTagNameMap[Name];

/** Null only in a frame that is not shown, which the page never is. */
declare function getSelection(): Selection;

/* Reports that are made in the browser: static/analysis/ */

/** A figure of real text: its mean, and what 5 % of the pieces are below and above, if that is known. */
interface HeldOutRange {
	mean: number;
	low: number | null;
	high: number | null;
}

/** Figures of pieces of real text, of so many characters. */
interface HeldOut {
	characters: number;
	pieces: number;
	figures: Record<string, HeldOutRange>;
}

/** A word of a text: its key is the same for all spellings. */
interface WordMark {
	start: number;
	end: number;
	word: string;
	key: string;
	real: boolean;
	begins_like?: { word: string; shared: number } | null;
	ends_like?: { word: string; shared: number } | null;
}

interface Speaker {
	name: string;
	known: boolean;
	speeches: number;
	characters: number;
}

/** The form of a text, as `Structure` of model/analysis/structure.py. */
interface Structure {
	speakers: Speaker[];
	speeches: number;
	lines: number;
	lineLength: number | null;
	verse: number | null;
	form: "verse" | "prose" | "mixed" | null;
	matched: number;
	unmatched: number[];
}

/** What was measured in a text. */
interface Measured {
	characters: string[];
	lengths: number[];
	words: WordMark[];
	structure: Structure;
	loops: (Span & { period: number })[];
	longest: Span | null;
	modelBits: number | null;
	weights: EngineWeights;
}

/* The engine, which writes texts in the browser */

/** How a character is chosen, as in `Sampling` of model/sampling/sampler.py. */
interface EngineSampling {
	readonly temperature: number;
	readonly top_k: number | null;
	readonly top_p: number | null;
	readonly min_p: number | null;
}

/** What a receipt says of a request; see model/generation/receipt.py. */
interface EngineParameters extends EngineSampling {
	readonly prompt: string;
	readonly max_new_tokens: number;
	readonly num_samples: number;
	readonly stop: readonly string[];
}

/** A network's shape and variants, as in `GPTConfig`, and what its norms add to a variance. */
interface EngineConfig {
	readonly vocab_size: number;
	readonly n_layer: number;
	readonly n_head: number;
	readonly n_embd: number;
	readonly block_size: number;
	readonly positions: "learned" | "rotary";
	readonly norm: "layernorm" | "rmsnorm";
	readonly activation: "gelu" | "relu2";
	readonly qk_norm: boolean;
	readonly logit_scale: number;
	readonly norm_epsilon: number;
	readonly qk_epsilon: number;
}

/** Where a tensor stands in a file of weights. */
interface EngineTensor {
	readonly dtype: string;
	readonly shape: readonly number[];
	readonly data_offsets: readonly [number, number];
}

/** A file of weights that was checked; see model/browser_weights.py. */
interface EngineWeights {
	readonly checkpoint: string;
	readonly numerics: string;
	readonly config: EngineConfig;
	readonly vocabulary: readonly string[];
	readonly tensors: Readonly<Record<string, EngineTensor>>;
	/** The bytes that the tensors stand in. */
	readonly data: Uint8Array<ArrayBuffer>;
}

/** Ids in, logits out, with the keys and values of one text in a cache. */
interface EngineNetwork {
	readonly config: EngineConfig;
	/** Ids that have been read. */
	readonly length: number;
	/** How many ids one `forward` reads at most. */
	readonly maxRows: number;
	/** About what each further id of a `forward` costs, in single ones; it is measured later. */
	readonly furtherRow: number;
	/** Keeps the first ids: none, or all but a few of the last `forward`. */
	truncate(length: number): void;
	/** Reads ids; returns the logits after each of the last `wanted`, valid until the next call. */
	forward(ids: readonly number[], wanted: number): Float32Array[];
}
