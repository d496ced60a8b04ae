// Logarithms, exponentials, sines and cosines, bit for bit those of model/arithmetic.py, which explains them. Math's own
// differ in the last bit from browser to browser; +, -, * and / do not.

const ROOT_HALF_BITS = 0x3fe6a09e; // the upper half of the bits of about √½
const SMALLEST_NORMAL = 2 ** -1022;
const ROUND = 1.5 * 2 ** 52; // added and subtracted again, it rounds to a whole number, halves to even
const LOG2_E = 1.4426950408889634;
const LN2_HIGH = 0.6931471805592082;
const LN2_LOW = 7.371002565167799e-13;
const TWO_OVER_PI = 0.6366197723675814;
const HALF_PI = [1.5707963109016418, 1.5893254712295857e-8, 6.123233932053594e-17, 6.36831716351095e-25];
export const SMALLEST_EXPONENT = -708;

const double = new Float64Array(1);
const halves = new Int32Array(double.buffer);
const UPPER = new Uint8Array(Uint16Array.of(1).buffer)[0]; // where the upper half of a double stands

/** The natural logarithm of a finite number above 0. @param {number} x */
export function logarithm(x) {
	const isNormal = x >= SMALLEST_NORMAL;
	double[0] = isNormal ? x : x * 2 ** 54;
	const whole = (halves[UPPER] - ROOT_HALF_BITS) >> 20;
	halves[UPPER] -= whole << 20;
	const f = double[0] - 1;
	const k = isNormal ? whole : whole - 54;
	const s = f / (2 + f);
	const z = s * s;
	let p = 2 / 21;
	p = p * z + 2 / 19;
	p = p * z + 2 / 17;
	p = p * z + 2 / 15;
	p = p * z + 2 / 13;
	p = p * z + 2 / 11;
	p = p * z + 2 / 9;
	p = p * z + 2 / 7;
	p = p * z + 2 / 5;
	p = p * z + 2 / 3;
	const halfSquare = 0.5 * f * f;
	return k * LN2_HIGH - (halfSquare - (s * (halfSquare + p * z) + k * LN2_LOW) - f);
}

/** e^x of a number up to 709; 0 below -708. @param {number} x */
export function exponential(x) {
	const clipped = x > SMALLEST_EXPONENT ? x : SMALLEST_EXPONENT;
	const n = clipped * LOG2_E + ROUND - ROUND;
	const high = clipped - n * LN2_HIGH;
	const low = n * LN2_LOW;
	const r = high - low;
	const rest = high - r - low;
	let p = 1 / 6227020800;
	p = p * r + 1 / 479001600;
	p = p * r + 1 / 39916800;
	p = p * r + 1 / 3628800;
	p = p * r + 1 / 362880;
	p = p * r + 1 / 40320;
	p = p * r + 1 / 5040;
	p = p * r + 1 / 720;
	p = p * r + 1 / 120;
	p = p * r + 1 / 24;
	p = p * r + 1 / 6;
	p = p * r + 0.5;
	double[0] = 0;
	halves[UPPER] = (n + 1023) << 20;
	const power = double[0];
	return x > SMALLEST_EXPONENT ? (1 + (r + (r * r * p + rest))) * power : 0;
}

/** The sine and the cosine of an angle of at most 2²⁷ radians. @param {number} x @returns {[number, number]} */
export function sineAndCosine(x) {
	const n = x * TWO_OVER_PI + ROUND - ROUND;
	const exact = x - n * HALF_PI[0] - n * HALF_PI[1];
	const third = n * HALF_PI[2];
	const fourth = n * HALF_PI[3];
	const high = exact - third;
	const low = exact - high - third - fourth;
	const r = high + low;
	const rest = high - r + low;
	const z = r * r;
	const halfZ = 0.5 * z;
	let p = 1 / 355687428096000;
	p = p * z - 1 / 1307674368000;
	p = p * z + 1 / 6227020800;
	p = p * z - 1 / 39916800;
	p = p * z + 1 / 362880;
	p = p * z - 1 / 5040;
	p = p * z + 1 / 120;
	p = p * z - 1 / 6;
	const sine = r + (r * z * p + (rest - halfZ * rest));
	let q = 1 / 20922789888000;
	q = q * z - 1 / 87178291200;
	q = q * z + 1 / 479001600;
	q = q * z - 1 / 3628800;
	q = q * z + 1 / 40320;
	q = q * z - 1 / 720;
	q = q * z + 1 / 24;
	const nearOne = 1 - halfZ;
	const cosine = nearOne + (1 - nearOne - halfZ + (z * z * q - r * rest));
	const quadrant = n & 3;
	if (quadrant === 0) return [sine, cosine];
	if (quadrant === 1) return [cosine, -sine];
	if (quadrant === 2) return [-sine, -cosine];
	return [-cosine, sine];
}
