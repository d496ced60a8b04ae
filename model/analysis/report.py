"""A text's report: what the model made up and what it copied, for a whole text or while it is generated."""

import math
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from model.analysis.measure import FIGURES, Measurement, measure
from model.analysis.overlap import CopiedRun, CopyScanner, Lengths, find_runs, longest_run, non_overlapping
from model.analysis.suffix_array import Source
from model.analysis.summary import Sentence, verdict, write_sentences
from model.analysis.text_index import HeldOut, Range, TextIndex
from model.analysis.words import Likeness, Mark, WordMarker
from model.cancellation import CancelCheck, never_cancelled
from model.sampling.ngram_draft import Draft
from model.vocabulary import Vocabulary

MIN_LISTED_RUN = 20  # characters from which a run is listed
DIGITS = 6  # significant ones, of a figure in JSON


class ListedRun(NamedTuple):
    """A copied run, and the position where it stands first in the training text, if that text was given."""

    run: CopiedRun
    source_position: int | None


@dataclass(frozen=True)
class Report:
    """What was measured in a text, and the same figures of real text; positions are in code points.

    Attributes:
        runs: of 20 characters or more that stand word for word in the training text, of overlapping ones the
            longest; where there is none, the longest of all.
        shortest: characters in the shortest run that the lengths report.
        held_out: figures of real text that the model was not trained on, in pieces about as long as the text.
        sentences: on copies, words, structure and quality.
    """

    measured: Measurement
    runs: tuple[ListedRun, ...]
    shortest: int
    held_out: HeldOut | None
    sentences: dict[str, Sentence]

    def content(self) -> dict[str, Any]:
        """The report as JSON."""
        found = self.measured
        held_out = None
        if self.held_out is not None:
            held_out = {"characters": self.held_out.characters, "pieces": self.held_out.pieces}
        return {
            "characters": len(found.text),
            "held_out": held_out,
            "figures": self._figures(),
            "sentences": {
                part: {"key": sentence.key, "values": dict(sentence.values), "english": sentence.english}
                for part, sentence in self.sentences.items()
            },
            "copies": {
                "shortest": self.shortest,
                "lengths": found.lengths.tolist(),
                "runs": [
                    {"start": listed.run.start, "end": listed.run.end, "place": listed.source_position}
                    for listed in self.runs
                ],
            },
            "words": {"count": len(found.words), "invented": [mark_content(mark) for mark in found.invented]},
            "structure": self._structure(),
            "loops": [
                {"start": loop.start, "end": loop.end, "period": loop.period, "count": _rounded(loop.count)}
                for loop in found.loops
            ],
        }

    def _figures(self) -> dict[str, Any]:
        """The figures that the text or the held-out text has, in the order of `FIGURES`."""
        ranges = self.held_out.figures if self.held_out else {}
        figures: dict[str, Any] = {}
        for name in FIGURES:
            if name in self.measured.figures or name in ranges:
                figures[name] = _figure(self.measured.figures.get(name), ranges.get(name))
        return figures

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
        bits: mean bits per character under the model, if the caller knows them.
        val_loss: of the model on real text, in nats per character, to compare `bits` with.
        source: the training text, for exact lengths of runs and their positions there.
        check_cancelled: called often; may raise, to end the work.
    """
    measured = measure(text, index, draft, vocabulary, bits, source, check_cancelled)
    held_out = index.held_out_of(len(text))
    if held_out and val_loss is not None:
        figures = {**held_out.figures, "model_bits": Range(val_loss / math.log(2))}
        held_out = replace(held_out, figures=figures)
    runs = non_overlapping(find_runs(measured.lengths, MIN_LISTED_RUN))
    longest = longest_run(measured.lengths)
    if longest and not runs:
        runs = [longest]
    listed: list[ListedRun] = []
    for run in runs:
        source_position = source.find(text[run.start : run.end]) if source else None
        listed.append(ListedRun(run, source_position))
    sentences = write_sentences(measured, index.copies, held_out.figures if held_out else {})
    return Report(measured, tuple(listed), index.copies.shortest, held_out, sentences)


@dataclass(frozen=True)
class Update:
    """What a part of a text adds to its marks."""

    first: int  # position in the text of the part's first character
    lengths: Lengths  # of the copied runs at each of its characters
    words: tuple[Mark, ...]  # those that it completes

    def content(self) -> dict[str, Any]:
        """The update as JSON."""
        return {
            "first": self.first,
            "lengths": self.lengths.tolist(),
            "words": [mark_content(mark) for mark in self.words],
        }


@dataclass
class LiveMarks:
    """Marks copies and words of a text while it is generated; together the same as a report's of the whole text."""

    index: TextIndex
    _read: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self._scanner = CopyScanner(self.index.copies)
        self._marker = WordMarker(self.index.words)

    def append(self, text: str) -> Update:
        """The marks that `text` adds, which follows the texts appended before."""
        first = self._read
        self._read += len(text)
        return Update(first, self._scanner.feed(text), tuple(self._marker.feed(text)))

    def finish(self) -> Update:
        """The marks that the end of the text adds: the last word, if it is a real one."""
        return Update(self._read, self._scanner.feed(""), tuple(self._marker.finish()))


def mark_content(mark: Mark) -> dict[str, Any]:
    """A word's mark as JSON; an invented word has those that it is like."""
    content = {"start": mark.word.start, "end": mark.word.end, "word": mark.word.text, "real": mark.real}
    if mark.real:
        return content
    return content | {"begins_like": _like(mark.begins_like), "ends_like": _like(mark.ends_like)}


def _like(likeness: Likeness | None) -> dict[str, Any] | None:
    return None if likeness is None else {"word": likeness.word, "shared": likeness.shared}


def _figure(value: float | None, held_out: Range | None) -> dict[str, Any]:
    """A figure of a text and its range in held-out text as JSON."""
    content: dict[str, Any] = {"value": _rounded(value), "held_out": None, "verdict": None}
    if held_out is not None:
        content["held_out"] = {name: _rounded(bound) for name, bound in vars(held_out).items()}
        content["verdict"] = None if value is None else verdict(value, held_out)
    return content


def _rounded(value: float | None) -> float | None:
    if value is None or math.isinf(value):
        return None
    return float(f"{value:.{DIGITS}g}")
