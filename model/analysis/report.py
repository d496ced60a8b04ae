"""What did the model make up, and what did it copy? A text's report, whole or while the text comes."""

import math
from dataclasses import dataclass, field, replace
from typing import Any

from model.analysis.measure import FIGURES, Measurement, measure
from model.analysis.overlap import CopiedRun, CopyMeter, Lengths, apart, find_runs, longest_run
from model.analysis.suffix_array import Source
from model.analysis.summary import Sentence, verdict, write_sentences
from model.analysis.text_index import HeldOut, Range, TextIndex
from model.analysis.words import Likeness, Mark, WordMarker
from model.cancellation import CancelCheck, never_cancelled
from model.sampling.ngram_draft import Draft
from model.vocabulary import Vocabulary

MIN_LISTED_RUN = 20  # characters from which a run is listed
DIGITS = 6


@dataclass(frozen=True)
class Report:
    """What was found in a text, beside the same of real text; places are code points.

    Attributes:
        runs: of 20 characters or more that stand word for word in the training text, of overlapping ones the
            longest; or else the longest there is. With each, its first place there, if that text was at hand.
        shortest: characters in the shortest run that the lengths tell of.
        held_out: real text that the model was not trained on, in pieces about as long as the text.
        sentences: on copies, words, structure and quality.
    """

    measured: Measurement
    runs: tuple[tuple[CopiedRun, int | None], ...]
    shortest: int
    held_out: HeldOut | None
    sentences: dict[str, Sentence]

    def content(self) -> dict[str, Any]:
        """The report as JSON."""
        found, held_out = self.measured, self.held_out
        ranges = held_out.figures if held_out else {}
        return {
            "characters": len(found.text),
            "held_out": held_out and {"characters": held_out.characters, "pieces": held_out.pieces},
            "figures": {
                name: _figure(found.figures.get(name), ranges.get(name))
                for name in FIGURES
                if name in found.figures or name in ranges
            },
            "sentences": {
                part: {"key": sentence.key, "values": dict(sentence.values), "english": sentence.english}
                for part, sentence in self.sentences.items()
            },
            "copies": {
                "shortest": self.shortest,
                "lengths": found.lengths.tolist(),
                "runs": [{"start": run.start, "end": run.end, "place": place} for run, place in self.runs],
            },
            "words": {"count": len(found.words), "invented": [mark_content(mark) for mark in found.invented]},
            "structure": self._structure(),
            "loops": [
                {"start": loop.start, "end": loop.end, "period": loop.period, "count": _rounded(loop.count)}
                for loop in found.loops
            ],
        }

    def _structure(self) -> dict[str, Any]:
        found = self.measured.structure
        return {
            "speakers": [vars(speaker) for speaker in found.speakers],
            "speeches": found.speeches,
            "lines": found.lines,
            "form": found.form,
            "matched": found.matched,
            "unmatched": list(found.unmatched),
        }


def make_report(
    text: str,
    index: TextIndex,
    draft: Draft | None,
    vocabulary: Vocabulary,
    *,
    bits: float | None = None,
    val_loss: float | None = None,
    source: Source | None = None,
    check_cancelled: CancelCheck = never_cancelled,
) -> Report:
    """The report of a text, in about linear time.

    Args:
        bits: mean surprise of its characters under the model, as the caller knows it.
        val_loss: of the model on real text, in nats per character, to compare `bits` with.
        source: the training text, to say where runs stand.
        check_cancelled: called often; what it raises ends the work.
    """
    measured = measure(text, index, draft, vocabulary, bits, source, check_cancelled)
    held_out = index.held_out_of(len(text))
    if held_out and val_loss is not None:
        figures = {**held_out.figures, "model_bits": Range(val_loss / math.log(2))}
        held_out = replace(held_out, figures=figures)
    runs, longest = apart(find_runs(measured.lengths, MIN_LISTED_RUN)), longest_run(measured.lengths)
    if longest and not runs:
        runs = [longest]
    places = [source.find(text[run.start : run.end]) if source else None for run in runs]
    sentences = write_sentences(measured, index.copies, held_out.figures if held_out else {})
    return Report(measured, tuple(zip(runs, places, strict=True)), index.copies.shortest, held_out, sentences)


@dataclass(frozen=True)
class Update:
    """What a piece of text adds: the length at each of its characters, the first of which is the text's `first`,
    and the words that it completes.
    """

    first: int
    lengths: Lengths
    words: tuple[Mark, ...]

    def content(self) -> dict[str, Any]:
        """The update as JSON."""
        return {
            "first": self.first,
            "lengths": self.lengths.tolist(),
            "words": [mark_content(mark) for mark in self.words],
        }


@dataclass
class LiveMarks:
    """Copies and words of a text while it comes: together the same as a report's of the whole."""

    index: TextIndex
    _read: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self._meter, self._marker = CopyMeter(self.index.copies), WordMarker(self.index.words)

    def append(self, text: str) -> Update:
        """Go on with `text`."""
        first, self._read = self._read, self._read + len(text)
        return Update(first, self._meter.extend(text), tuple(self._marker.extend(text)))

    def finish(self) -> Update:
        """The text ends here: the last word, if it is a real one."""
        return Update(self._read, self._meter.extend(""), tuple(self._marker.finish()))


def mark_content(mark: Mark) -> dict[str, Any]:
    """A word's mark as JSON; one that is real is like itself."""
    content = {"start": mark.word.start, "end": mark.word.end, "word": mark.word.text, "real": mark.real}
    if mark.real:
        return content
    return content | {"begins_like": _like(mark.begins_like), "ends_like": _like(mark.ends_like)}


def _like(likeness: Likeness | None) -> dict[str, Any] | None:
    return None if likeness is None else {"word": likeness.word, "shared": likeness.shared}


def _figure(value: float | None, held_out: Range | None) -> dict[str, Any]:
    return {
        "value": _rounded(value),
        "held_out": held_out and {name: _rounded(bound) for name, bound in vars(held_out).items()},
        "verdict": None if value is None or held_out is None else verdict(value, held_out),
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None or math.isinf(value) else float(f"{value:.{DIGITS}g}")
