// Names of characters that cannot be seen, or not by themselves: Unicode's own, for the common ones.

/** @type {Record<number, string>} */
const NAMES = {
	0x00: "NULL",
	0x07: "BELL",
	0x08: "BACKSPACE",
	0x09: "TAB",
	0x0a: "LINE FEED",
	0x0b: "LINE TABULATION",
	0x0c: "FORM FEED",
	0x0d: "CARRIAGE RETURN",
	0x1a: "SUBSTITUTE",
	0x1b: "ESCAPE",
	0x20: "SPACE",
	0x7f: "DELETE",
	0x85: "NEXT LINE",
	0xa0: "NO-BREAK SPACE",
	0xad: "SOFT HYPHEN",
	0x34f: "COMBINING GRAPHEME JOINER",
	0x61c: "ARABIC LETTER MARK",
	0x1680: "OGHAM SPACE MARK",
	0x180e: "MONGOLIAN VOWEL SEPARATOR",
	0x2000: "EN QUAD",
	0x2001: "EM QUAD",
	0x2002: "EN SPACE",
	0x2003: "EM SPACE",
	0x2004: "THREE-PER-EM SPACE",
	0x2005: "FOUR-PER-EM SPACE",
	0x2006: "SIX-PER-EM SPACE",
	0x2007: "FIGURE SPACE",
	0x2008: "PUNCTUATION SPACE",
	0x2009: "THIN SPACE",
	0x200a: "HAIR SPACE",
	0x200b: "ZERO WIDTH SPACE",
	0x200c: "ZERO WIDTH NON-JOINER",
	0x200d: "ZERO WIDTH JOINER",
	0x200e: "LEFT-TO-RIGHT MARK",
	0x200f: "RIGHT-TO-LEFT MARK",
	0x2028: "LINE SEPARATOR",
	0x2029: "PARAGRAPH SEPARATOR",
	0x202a: "LEFT-TO-RIGHT EMBEDDING",
	0x202b: "RIGHT-TO-LEFT EMBEDDING",
	0x202c: "POP DIRECTIONAL FORMATTING",
	0x202d: "LEFT-TO-RIGHT OVERRIDE",
	0x202e: "RIGHT-TO-LEFT OVERRIDE",
	0x202f: "NARROW NO-BREAK SPACE",
	0x205f: "MEDIUM MATHEMATICAL SPACE",
	0x2060: "WORD JOINER",
	0x2066: "LEFT-TO-RIGHT ISOLATE",
	0x2067: "RIGHT-TO-LEFT ISOLATE",
	0x2068: "FIRST STRONG ISOLATE",
	0x2069: "POP DIRECTIONAL ISOLATE",
	0x2800: "BRAILLE PATTERN BLANK",
	0x3000: "IDEOGRAPHIC SPACE",
	0x3164: "HANGUL FILLER",
	0xfe0e: "VARIATION SELECTOR-15",
	0xfe0f: "VARIATION SELECTOR-16",
	0xfeff: "ZERO WIDTH NO-BREAK SPACE",
	0xfffc: "OBJECT REPLACEMENT CHARACTER",
	0xfffd: "REPLACEMENT CHARACTER",
};
const INVISIBLE = /[\p{C}\p{Z}\p{Default_Ignorable_Code_Point}]/u;
const MARK = /\p{M}/u;

/**
 * What to call a character that cannot be seen by itself, such as "TAB (U+0009)", or one with marks, which may look like
 * another; null if it can be seen.
 * @param {string} character
 */
export function nameOf(character) {
	const points = Array.from(character, (one) => one.codePointAt(0) ?? 0);
	const code = points.map((one) => `U+${one.toString(16).toUpperCase().padStart(4, "0")}`).join(" ");
	const [point] = points;
	if (points.length > 1 && !MARK.test(String.fromCodePoint(point))) return `${character} (${code})`;
	if (point in NAMES) return `${NAMES[point]} (${code})`;
	if (INVISIBLE.test(character)) return code;
	return MARK.test(character) ? `◌${character} (${code})` : null; // on a circle, for it stands on another character
}
