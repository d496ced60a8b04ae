// What is to be verified: a receipt or a link, read from a text that anyone may have damaged. Knows nothing of the page,
// and of how a text is written again.

import { fromFragment } from "../editor/share_format.js";
import { t } from "../ui/i18n.js";

const NUMERICS = "cpu-int8"; // of the texts that a browser writes
const SEED_LIMIT = 2 ** 53;
const MAX_SAMPLES = 16; // as the server's
const MAX_SHOWN = 40; // characters of a wrong value
const HEX = /^[0-9a-f]{64}$/;
const LINK = /(?:^|#)(s=[\w-]*)$/;
const SHORT = 12; // hex digits of an identity that are shown, and that links have
/** For what a link leaves out, as the server fills it in; its filters are off. */
const DEFAULTS = { temperature: 0.8, top_k: null, top_p: null, min_p: null };

/** Why something cannot be verified; its message is one sentence in the reader's language. */
export class SubjectError extends Error {}

/**
 * What a text holds: a receipt, an answer of the server with a receipt in it, or a link.
 * @param {string} text @param {ModelCard} card @returns {Promise<Subject>}
 */
export async function readSubject(text, card) {
	const trimmed = text.trim();
	if (!trimmed) throw new SubjectError(t("verify_empty"));
	const subject = /^[[{"]/.test(trimmed) ? receiptOf(parsed(trimmed)) : await linkOf(trimmed, card);
	check(subject, card);
	return subject;
}

/** @param {string} text @returns {unknown} */
function parsed(text) {
	try {
		return JSON.parse(text);
	} catch (error) {
		const reason = error instanceof Error ? error.message : "";
		throw new SubjectError(t("verify_no_json", { reason }));
	}
}

/** @param {string} text @param {ModelCard} card @returns {Promise<Subject>} */
async function linkOf(text, card) {
	const fragment = text.match(LINK)?.[1];
	if (!fragment) throw new SubjectError(t("verify_neither"));
	const link = await fromFragment(fragment);
	if (!link) throw new SubjectError(t("verify_bad_link"));
	const { prefix, seed, checkpoint, numerics, samples } = link;
	const { max_new_tokens = 0, num_samples = 1, ...sampling } = { ...DEFAULTS, ...link.parameters };
	const prompt = Array.from(prefix).slice(-card.block_size).join("") || card.default_prompt;
	const parameters = { ...sampling, prompt, max_new_tokens, num_samples, stop: [] };
	checkParameters(parameters, "");
	return { isLink: true, checkpoint, numerics, seed, parameters, samples: samples.map((prints) => ({ prints })) };
}

/** @param {unknown} content @returns {Subject} */
function receiptOf(content) {
	const answer = objectAt(content, "receipt");
	if (!("receipt" in answer) && "document" in answer) throw new SubjectError(t("verify_no_receipt"));
	const within = "receipt" in answer ? "receipt." : "";
	const receipt = within ? objectAt(answer.receipt, "receipt") : answer;
	const { checkpoint, numerics, seed } = receipt;
	expect(HEX.test(String(checkpoint)), `${within}checkpoint`, checkpoint, t("verify_hex"));
	expect(typeof numerics === "string", `${within}numerics`, numerics, t("verify_text"));
	expectWhole(seed, 0, SEED_LIMIT - 1, `${within}seed`);
	const parameters = objectAt(receipt.parameters, `${within}parameters`);
	checkParameters(parameters, `${within}parameters.`);
	const samples = samplesOf(receipt.samples, parameters.num_samples, `${within}samples`);
	const texts = within ? textsOf(answer.samples) : new Map();
	return {
		isLink: false,
		checkpoint: String(checkpoint),
		numerics: String(numerics),
		seed: Number(seed),
		parameters,
		samples: samples.map((sha256, i) => ({ sha256, text: texts.get(i) })),
	};
}

/**
 * The digests of samples 0, 1 and so on.
 * @param {unknown} given @param {number} count @param {string} field @returns {string[]}
 */
function samplesOf(given, count, field) {
	const isList = Array.isArray(given) && given.length === count;
	expect(isList, field, given, t("verify_samples", { count }));
	return /** @type {unknown[]} */ (given).map((one, i) => {
		const { index, sha256 } = objectAt(one, `${field}.${i}`);
		expect(index === i, `${field}.${i}.index`, index, String(i));
		expect(HEX.test(String(sha256)), `${field}.${i}.sha256`, sha256, t("verify_hex"));
		return String(sha256);
	});
}

/** The texts that an answer has beside its receipt, by the numbers of samples. @param {unknown} given */
function textsOf(given) {
	/** @type {Map<number, string>} */
	const texts = new Map();
	if (given === undefined) return texts;
	expect(Array.isArray(given), "samples", given, t("verify_list"));
	for (const [i, one] of /** @type {unknown[]} */ (given).entries()) {
		const { index, text } = objectAt(one, `samples.${i}`);
		if (text === undefined) continue;
		expect(typeof text === "string", `samples.${i}.text`, text, t("verify_text"));
		texts.set(Number(index), String(text));
	}
	return texts;
}

/** @param {Record<string, any>} parameters @param {string} within @returns {asserts parameters is EngineParameters} */
function checkParameters(parameters, within) {
	const { prompt, temperature, top_k, top_p, min_p, max_new_tokens, num_samples, stop } = parameters;
	expect(typeof prompt === "string" && prompt !== "", `${within}prompt`, prompt, t("verify_text"));
	expectWhole(max_new_tokens, 1, Infinity, `${within}max_new_tokens`);
	expectWhole(num_samples, 1, MAX_SAMPLES, `${within}num_samples`);
	expectNumber(temperature, Number.MAX_VALUE, `${within}temperature`);
	if (top_k !== null) expectWhole(top_k, 1, Infinity, `${within}top_k`);
	if (top_p !== null) expectNumber(top_p, 1, `${within}top_p`);
	if (min_p !== null) expectNumber(min_p, 1, `${within}min_p`);
	const isList = Array.isArray(stop) && stop.every((one) => typeof one === "string");
	expect(isList, `${within}stop`, stop, t("verify_list"));
}

/** @param {unknown} value @param {number} low @param {number} high @param {string} field */
function expectWhole(value, low, high, field) {
	const fits = Number.isInteger(value) && Number(value) >= low && Number(value) <= high;
	expect(fits, field, value, high < Infinity ? t("verify_whole", { low, high }) : t("verify_whole_from", { low }));
}

/** @param {unknown} value @param {number} high @param {string} field */
function expectNumber(value, high, field) {
	const fits = Number.isFinite(value) && Number(value) >= 0 && Number(value) <= high;
	expect(fits, field, value, high === 1 ? t("verify_share") : t("verify_number"));
}

/** @param {unknown} value @param {string} field @returns {Record<string, any>} */
function objectAt(value, field) {
	expect(typeof value === "object" && value !== null && !Array.isArray(value), field, value, t("verify_object"));
	return /** @type {Record<string, any>} */ (value);
}

/**
 * Throws where a field is not as it should be.
 * @param {boolean} isRight @param {string} field @param {unknown} value @param {string} expected
 */
function expect(isRight, field, value, expected) {
	if (isRight) return;
	if (value === undefined) throw new SubjectError(t("verify_missing", { field }));
	const json = JSON.stringify(value);
	const found = json.length > MAX_SHOWN ? `${json.slice(0, MAX_SHOWN)}…` : json;
	throw new SubjectError(t("verify_wrong", { field, found, expected }));
}

/** Throws where another model or another arithmetic than those of this page would be needed. @param {Subject} subject @param {ModelCard} card */
function check({ checkpoint, numerics, parameters }, card) {
	const there = checkpoint.slice(0, SHORT);
	const here = card.identity.slice(0, SHORT);
	const isOther = checkpoint.length < SHORT || !card.identity.startsWith(checkpoint);
	if (isOther) throw new SubjectError(t("verify_other_model", { there, here }));
	if (numerics !== NUMERICS)
		throw new SubjectError(t("verify_other_numerics", { there: numerics, here: NUMERICS }));
	const known = new Set(card.vocabulary);
	for (const character of parameters.prompt) {
		if (!known.has(character))
			throw new SubjectError(t("verify_unknown", { character: JSON.stringify(character) }));
	}
}
