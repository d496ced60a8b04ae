"""Every figure of a report: one function measures the model's texts and those they are compared with."""

from dataclasses import dataclass

import numpy as np

from model.analysis.overlap import Lengths, longest_run, share_inside
from model.analysis.repetition import Loop, distinct, find_loops
from model.analysis.structure import Structure, analyse
from model.analysis.suffix_array import Source
from model.analysis.text_index import TextIndex
from model.analysis.words import Mark, mark_words
from model.cancellation import CancelCheck, never_cancelled
from model.sampling.ngram_draft import Draft
from model.vocabulary import Vocabulary

FIGURES = {
    "copied_20": "share inside runs of 20 characters or more that stand word for word in the training text",
    "copied_50": "share inside such runs of 50 or more",
    "copied_100": "share inside such runs of 100 or more",
    "longest_copy": "longest such run, in characters",
    "invented_words": "share of the words that the training text does not have",
    "invented_speakers": "share of the speakers that the training text does not have",
    "speech_lines": "lines in a speech, on average",
    "line_length": "characters in a line, on average",
    "verse": "share of the lines within a sentence that begin with a capital",
    "unmatched": "brackets and quotes without a partner, in 1,000 characters",
    "distinct_1": "share of the words that are different",
    "distinct_2": "share of the word pairs that are different",
    "distinct_3": "share of the runs of three words that are different",
    "distinct_4": "share of the runs of four words that are different",
    "looped": "share inside loops: what comes again at once",
    "ngram_bits": "bits a character, by the checkpoint's table of n-grams",
    "model_bits": "bits a character, by the model",
}


@dataclass(frozen=True)
class Measurement:
    """What was measured in a text; `figures` has those of `FIGURES` that the text and the index allow."""

    text: str
    lengths: Lengths
    words: tuple[Mark, ...]
    structure: Structure
    loops: tuple[Loop, ...]
    figures: dict[str, float]

    @property
    def invented(self) -> list[Mark]:
        """The marks of the words that the training text does not have."""
        return [mark for mark in self.words if not mark.real]


def measure(
    text: str,
    index: TextIndex,
    draft: Draft | None,
    vocabulary: Vocabulary,
    model_bits: float | None = None,
    source: Source | None = None,
    check_cancelled: CancelCheck = never_cancelled,
) -> Measurement:
    """Measure a text, in time about linear in its length.

    Args:
        draft: the checkpoint's n-gram table; without it there are no n-gram bits.
        model_bits: mean bits per character under the model, if they are known.
        source: the training text, if it is given: then lengths of copied runs are exact.
        check_cancelled: called between the steps; may raise, to end the work.
    """
    lengths = index.copies.lengths(text)
    check_cancelled()
    words = tuple(mark_words(text, index.words, check_cancelled))
    check_cancelled()
    if source is not None:
        lengths = np.minimum(lengths, source.lengths(text))
        lengths[lengths < index.copies.shortest] = 0
    structure = analyse(text, index.speakers)
    check_cancelled()
    loops = tuple(find_loops(text))
    check_cancelled()
    longest = longest_run(lengths)
    keys = [mark.word.key for mark in words]
    figures = {
        "copied_20": share_inside(lengths, 20),
        "copied_50": share_inside(lengths, 50),
        "copied_100": share_inside(lengths, 100),
        "longest_copy": longest.length if longest else 0,
        "invented_words": _share(sum(not mark.real for mark in words), len(words)),
        "invented_speakers": _share(
            sum(not speaker.known for speaker in structure.speakers), len(structure.speakers)
        ),
        "speech_lines": _share(structure.lines, structure.speeches),
        "line_length": structure.line_length,
        "verse": structure.verse,
        "unmatched": _share(1000 * len(structure.unmatched), len(text)),
        **{f"distinct_{n}": distinct(keys, n) for n in range(1, 5)},
        "looped": _share(sum(loop.end - loop.start for loop in loops), len(text)),
        "ngram_bits": _bits(text, draft, vocabulary),
        "model_bits": model_bits,
    }
    check_cancelled()
    known = {name: float(value) for name, value in figures.items() if value is not None}
    return Measurement(text, lengths, words, structure, loops, known if text else {})


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _bits(text: str, draft: Draft | None, vocabulary: Vocabulary) -> float | None:
    """Mean bits per character by the n-gram table; characters outside the vocabulary are skipped."""
    known = set(vocabulary.characters)
    ids = vocabulary.encode("".join(character for character in text if character in known))
    return float(draft.bits(ids).mean()) if draft is not None and ids else None
