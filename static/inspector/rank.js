// The rank of a character among all that the model knows, in words.

import { language, t } from "../ui/i18n.js";

/** A rank in words. @param {number} rank */
export function choice(rank) {
	if (rank <= 3) return t(`choice_${rank}`);
	const [st, nd, rd, th] = t("ordinals").split("|");
	/** @type {Record<string, string>} */
	const suffixes = { one: st, two: nd, few: rd };
	const suffix = suffixes[new Intl.PluralRules(language, { type: "ordinal" }).select(rank)] ?? th;
	return t("choice_n", { rank, suffix });
}
