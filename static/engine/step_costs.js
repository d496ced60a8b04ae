// What a step of several rows costs beside one of a single row, measured while texts are written: it decides how many
// draft tokens are worth their cost, as in model/generation/speculation.py. It changes the speed of a text only.

const SHARE = 1 / 16; // of each new measurement in the mean
const MAX_BREAK_EVEN = 0.9; // where a draft token would have to be accepted more often to pay, none is proposed

/** The costs of one network's steps. */
export class StepCosts {
	/** @param {number} furtherRow what each further row costs, in single rows, until it has been measured */
	constructor(furtherRow) {
		this._single = 0; // milliseconds
		this._further = 0;
		this._assumed = furtherRow;
	}

	/** @param {number} rows of a step @param {number} milliseconds that it took */
	observe(rows, milliseconds) {
		if (rows === 1) this._single = mean(this._single, milliseconds);
		else if (this._single > 0) this._further = mean(this._further, (milliseconds - this._single) / (rows - 1));
	}

	/**
	 * Whether one more draft token pays.
	 * @param {number} tokens that are proposed already @param {number} expected characters that the step gives with them
	 * @param {number} allAccepted the probability that all of them and this one are accepted
	 */
	pays(tokens, expected, allAccepted) {
		const measured = this._single > 0 && this._further > 0;
		const further = measured ? this._further / this._single : this._assumed;
		const breakEven = (further * expected) / (1 + tokens * further);
		return further <= MAX_BREAK_EVEN && allAccepted >= breakEven;
	}
}

/** @param {number} before @param {number} now */
function mean(before, now) {
	return before === 0 ? now : before + SHARE * (now - before);
}
