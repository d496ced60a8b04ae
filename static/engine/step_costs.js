// When draft tokens pay: what a step of several rows costs beside one of a single row, and how far the n-gram table's
// probabilities can be trusted; both are measured while texts are written. It changes the speed of a text only.

const SHARE = 1 / 16; // of each new measurement in the mean
const FORGETTING = 1.01; // of the lowest cost with each new one: a device becomes slower when it is hot, or busy
const TRIAL = 32; // every so many steps, one has no draft tokens, to learn what a single row costs now
const RECOVERY = 1 / 128; // of lost trust that comes back with each step without draft tokens
const MAX_BREAK_EVEN = 0.9; // where a draft token would have to be accepted more often to pay, none is proposed

/** The costs of one network's steps. */
export class StepCosts {
	/** @param {number} furtherRow what each further row costs, in single rows, until it has been measured */
	constructor(furtherRow) {
		this._single = Infinity; // milliseconds
		this._further = furtherRow;
		this._steps = 0;
		this._trust = 1;
	}

	/** @param {number} rows of a step @param {number} milliseconds that it took */
	observe(rows, milliseconds) {
		this._steps += 1;
		if (milliseconds <= 0) return; // a clock of whole milliseconds has not moved
		if (rows === 1) {
			this._single = Math.min(milliseconds, FORGETTING * this._single);
			this._trust += RECOVERY * (1 - this._trust);
		} else if (this._single < Infinity) {
			const further = Math.max(0, milliseconds / this._single - 1) / (rows - 1);
			this._further = Math.min(further, FORGETTING * this._further);
		}
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
