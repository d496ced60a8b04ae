"""One sentence about each part of a report: the key of a template, the values for it, and the English text.

Shares are numbers from 0 to 1. A translation needs a template for each key of `ENGLISH`.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from model.analysis.measure import Measurement
from model.analysis.overlap import CopyIndex
from model.analysis.text_index import Range

Verdict = Literal["below", "within", "above"]
ENGLISH = {
    "copies.none": "Not even {shortest} characters of it stand together in the training text.",
    "copies.alone": "Its longest run from the training text has {longest} characters.",
    "copies.usual": "It has no more from the training text than unseen real text has: the longest run has "
    "{longest} characters ({low:.0f} to {high:.0f} there).",
    "copies.more": "It has more from the training text than unseen real text has: the longest run has {longest} "
    "characters ({low:.0f} to {high:.0f} there).",
    "copies.mostly": "Most of it is copied: {share:.0%} stand word for word in the training text.",
    "words.none": "It has no words.",
    "words.real": "The training text has all of its {count} words.",
    "words.alone": "{share:.1%} of its words are not in the training text.",
    "words.fewer": "{share:.1%} of its words are not in the training text, fewer than in unseen real text: "
    "{mean:.1%}.",
    "words.usual": "{share:.1%} of its words are not in the training text; in unseen real text: {mean:.1%}.",
    "words.more": "{share:.1%} of its words are not in the training text, more than in unseen real text: "
    "{mean:.1%}.",
    "structure.none": "It has no lines.",
    "structure.lines": "It has {lines} lines of {length:.0f} characters on average.",
    "structure.verse": "It has {lines} lines of verse, of {length:.0f} characters on average.",
    "structure.play": "It has {speeches} speeches by {speakers} speakers, {invented} of them invented.",
    "quality.none": "There is too little of it to judge.",
    "quality.loops": "It is caught in a loop: {share:.0%} of it says the same again and again.",
    "quality.dull": "It is more predictable than real text: {bits:.2f} bits a character by an n-gram model, not "
    "{low:.2f} to {high:.2f}.",
    "quality.usual": "It is as predictable as real text: {bits:.2f} bits a character by an n-gram model "
    "({low:.2f} to {high:.2f} there).",
    "quality.wild": "It is less predictable than real text: {bits:.2f} bits a character by an n-gram model, not "
    "{low:.2f} to {high:.2f}.",
    "quality.varied": "{share:.0%} of its word pairs are different.",
}


@dataclass(frozen=True)
class Sentence:
    """A sentence that can be translated."""

    key: str
    values: Mapping[str, float]

    @property
    def english(self) -> str:
        """The sentence in English."""
        return ENGLISH[self.key].format(**self.values)


def verdict(value: float, held_out: Range) -> Verdict | None:
    """Where a figure lies relative to the middle nine tenths of real text; None if these are not known."""
    if math.isinf(held_out.high):
        return None
    if value < held_out.low:
        return "below"
    return "above" if value > held_out.high else "within"


def write_sentences(measured: Measurement, copies: CopyIndex, held_out: Mapping[str, Range]) -> dict[str, Sentence]:
    """One sentence each on copies, words, structure and quality."""
    return {
        "copies": _copies(measured, copies, held_out.get("longest_copy")),
        "words": _words(measured, held_out.get("invented_words")),
        "structure": _structure(measured),
        "quality": _quality(measured, held_out),
    }


def _copies(measured: Measurement, copies: CopyIndex, held_out: Range | None) -> Sentence:
    longest = int(measured.figures.get("longest_copy", 0))
    share = measured.figures.get("copied_50", 0)
    if not longest:
        return Sentence("copies.none", {"shortest": copies.shortest})
    if share >= 0.5:
        return Sentence("copies.mostly", {"share": share})
    if held_out is None:
        return Sentence("copies.alone", {"longest": longest})
    kind = "more" if verdict(longest, held_out) == "above" else "usual"
    return Sentence(f"copies.{kind}", {"longest": longest, "low": held_out.low, "high": held_out.high})


def _words(measured: Measurement, held_out: Range | None) -> Sentence:
    share = measured.figures.get("invented_words")
    if share is None:
        return Sentence("words.none", {})
    if not share:
        return Sentence("words.real", {"count": len(measured.words)})
    if held_out is None:
        return Sentence("words.alone", {"share": share})
    kind = {"below": "fewer", "above": "more"}.get(verdict(share, held_out) or "", "usual")
    return Sentence(f"words.{kind}", {"share": share, "mean": held_out.mean})


def _structure(measured: Measurement) -> Sentence:
    found = measured.structure
    if found.speakers:
        invented = sum(not speaker.known for speaker in found.speakers)
        values = {"speeches": found.speeches, "speakers": len(found.speakers), "invented": invented}
        return Sentence("structure.play", values)
    if found.line_length is None:
        return Sentence("structure.none", {})
    kind = "verse" if found.form == "verse" else "lines"
    return Sentence(f"structure.{kind}", {"lines": found.lines, "length": found.line_length})


def _quality(measured: Measurement, held_out: Mapping[str, Range]) -> Sentence:
    figures = measured.figures
    looped = figures.get("looped", 0)
    usual_loops = held_out["looped"].high if "looped" in held_out else 0
    if looped > usual_loops:
        return Sentence("quality.loops", {"share": looped})
    bits = figures.get("ngram_bits")
    usual_bits = held_out.get("ngram_bits")
    if bits is not None and usual_bits is not None:
        kind = {"below": "dull", "above": "wild"}.get(verdict(bits, usual_bits) or "", "usual")
        return Sentence(f"quality.{kind}", {"bits": bits, "low": usual_bits.low, "high": usual_bits.high})
    if "distinct_2" in figures:
        return Sentence("quality.varied", {"share": figures["distinct_2"]})
    return Sentence("quality.none", {})
