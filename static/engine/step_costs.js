// When draft tokens pay: what a step of several rows costs beside one of a single row, and how far the n-gram table's
// probabilities can be trusted; both are measured while texts are written. It changes the speed of a text only.

const SHARE = 1 / 16; // of each new measurement in the trust
const FORGETTING = 0.95; // of a step's weight with each later one: a device becomes slower when it is hot, or busy
const PRIOR_WEIGHT = 2; // of the first guess, in steps
const MAX_DEVIATION = 2; // a step that took more times what was expected was interrupted, and counts as so many times
const MAX_SPEEDUP = 4; // a step that is as many times as fast as expected: the browser had not compiled those before it
const MIN_FURTHER_ROW = 0.05;
const TRIAL = 32; // every so many steps, one has no draft tokens, to learn what a single row costs now
const RECOVERY = 1 / 128; // of lost trust that comes back with each step without draft tokens
const MAX_BREAK_EVEN = 0.9; // where a draft token would have to be accepted more often to pay, none is proposed

// Weighted sums over steps: of 1, of further rows, of their squares, of times, and of times · further rows.
const NO_STEPS = { weight: 0, further: 0, squares: 0, times: 0, products: 0 };

/** The costs of one network's steps: a line through the times of the latest ones, by their rows. */
export class StepCosts {
	/** @param {number} furtherRow what each further row costs, in single rows, until it has been measured */
	constructor(furtherRow) {
		this._guess = furtherRow;
		this._further = furtherRow;
		this._single = 0; // milliseconds
		this._sums = NO_STEPS;
		this._steps = 0;
		this._trust = 1;
	}

	/** @param {number} rows of a step @param {number} milliseconds that it took */
	observe(rows, milliseconds) {
		this._steps += 1;
		if (rows === 1) this._trust += RECOVERY * (1 - this._trust);
		const further = rows - 1;
		const expected = this._single * (1 + further * this._further);
		let time = milliseconds;
		if (milliseconds > 0 && milliseconds * MAX_SPEEDUP < expected) this._sums = NO_STEPS;
		else if (expected > 0) time = Math.min(milliseconds, MAX_DEVIATION * expected);
		this._sums = {
			weight: FORGETTING * this._sums.weight + 1,
			further: FORGETTING * this._sums.further + further,
			squares: FORGETTING * this._sums.squares + further * further,
			times: FORGETTING * this._sums.times + time,
			products: FORGETTING * this._sums.products + time * further,
		};
		this._fit();
	}

	/** Fits the line; the first guess counts as a few steps of 1 and of 5 rows at the speed of all others. */
	_fit() {
		const { _sums: sums, _guess: guess } = this;
		const unit = sums.times / (sums.weight + guess * sums.further); // a single row's time, by the guess
		const weight = sums.weight + 2 * PRIOR_WEIGHT;
		const further = sums.further + 4 * PRIOR_WEIGHT;
		const squares = sums.squares + 16 * PRIOR_WEIGHT;
		const times = sums.times + PRIOR_WEIGHT * unit * (2 + 4 * guess);
		const products = sums.products + PRIOR_WEIGHT * unit * 4 * (1 + 4 * guess);
		const slope = (weight * products - further * times) / (weight * squares - further * further);
		const single = (times - slope * further) / weight;
		this._single = Math.max(single, 0);
		this._further = single > 0 ? Math.max(slope / single, MIN_FURTHER_ROW) : 1;
	}

	/** @param {number} expected draft tokens that should have been accepted @param {number} accepted that were */
	observeAccepted(expected, accepted) {
		this._trust += SHARE * (Math.min(1, accepted / expected) - this._trust);
	}

	/**
	 * Whether one more draft token pays: it costs a further row, and gives a character if all before it and itself are
	 * accepted. Without it the step gives `expected` characters, for the price of a row and its `tokens`.
	 * @param {number} tokens @param {number} expected @param {number} allAccepted the probability
	 */
	pays(tokens, expected, allAccepted) {
		if (this._steps % TRIAL === 0 || this._further > MAX_BREAK_EVEN) return false;
		const breakEven = (this._further * expected) / (1 + tokens * this._further);
		return allAccepted * this._trust >= breakEven;
	}
}
