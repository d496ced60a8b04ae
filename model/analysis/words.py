"""The words of a text: which of them the training text has, and which words the invented ones are like.

A word is a run of letters with their combining marks; "o'er" is two. Case does not count. A run of more than
`MAX_LETTERS` is no word (DNA, or a script without spaces): a list of such "words" would be the training text
itself, which nothing that is served may contain.
"""

import re
import unicodedata
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property

import numpy as np
from numpy.typing import NDArray

from model.cancellation import CancelCheck, never_cancelled

LAST = "\U0010ffff"  # appended to a beginning, it sorts after every word with that beginning
MIN_SHARED = 2  # characters that an invented word shares with one that it is like
MAX_MARKS = 30  # combining marks in a row
MAX_LETTERS = 50  # in a word, marks included; the longest in an English dictionary has 45


@dataclass(frozen=True)
class Word:
    """A word and its position in a text: from `start` up to `end`, in characters."""

    start: int
    end: int
    text: str

    @property
    def is_short(self) -> bool:
        """Whether it is short enough to be a word."""
        return len(self.text) <= MAX_LETTERS

    @cached_property
    def key(self) -> str:
        """A form that all spellings of the word share.

        Normalisation takes quadratic time in the length of a run of combining marks, so it is left out where a run
        is longer than any word has.
        """
        folded = self.text.casefold()
        return folded if _many_marks().search(folded) else unicodedata.normalize("NFC", folded)


@dataclass(frozen=True)
class Likeness:
    """A real word, and how many characters it shares with an invented one."""

    word: str
    shared: int


@dataclass(frozen=True)
class Mark:
    """What is known of one word of a text.

    Attributes:
        real: whether the training text has it.
        begins_like: for an invented word, the real word that shares the longest beginning with it, the most
            frequent of several; None if no word shares two characters.
        ends_like: the same for its end.
    """

    word: Word
    real: bool
    begins_like: Likeness | None = None
    ends_like: Likeness | None = None


@dataclass(frozen=True)
class WordList:
    """The words of the training text, as `Word.key`, the most frequent first."""

    words: tuple[str, ...]

    @classmethod
    def of(cls, text: str) -> "WordList":
        """The words of a training text; equally frequent ones in alphabetical order."""
        counts = Counter(word.key for word in find_words(text) if word.is_short)
        return cls(tuple(sorted(counts, key=lambda word: (-counts[word], word))))

    def mark(self, word: Word) -> Mark:
        """What is known of a word."""
        key = word.key
        if key in self._known:
            return Mark(word, True)
        return Mark(word, False, self._likest(self._beginnings, key), self._likest(self._ends, key[::-1]))

    def _likest(self, ordered: "Ordered", key: str) -> Likeness | None:
        """The most frequent of the words that share the longest beginning with `key`, as spelt in `ordered`.

        In alphabetical order, a word that shares most with `key` is next to the position of `key`.
        """
        position = bisect_left(ordered.spellings, key)
        neighbours = ordered.spellings[max(0, position - 1) : position + 1]
        shared = max([_shared_beginning(key, neighbour) for neighbour in neighbours], default=0)
        if shared < MIN_SHARED:
            return None
        beginning = key[:shared]
        first = bisect_left(ordered.spellings, beginning)
        last = bisect_left(ordered.spellings, beginning + LAST, first)
        return Likeness(self.words[int(ordered.ranks[first:last].min())], shared)

    @cached_property
    def _known(self) -> frozenset[str]:
        return frozenset(self.words)

    @cached_property
    def _beginnings(self) -> "Ordered":
        return Ordered.of(self.words)

    @cached_property
    def _ends(self) -> "Ordered":
        return Ordered.of([word[::-1] for word in self.words])


def _shared_beginning(first: str, second: str) -> int:
    """How many characters both words begin with."""
    shared = 0
    for mine, other in zip(first, second, strict=False):
        if mine != other:
            break
        shared += 1
    return shared


@dataclass(frozen=True)
class Ordered:
    """Words in alphabetical order, and the rank of each (N,): 0 for the most frequent."""

    spellings: list[str]
    ranks: NDArray[np.int64]

    @classmethod
    def of(cls, words: Sequence[str]) -> "Ordered":
        """Sort words that are given in the order of their ranks."""
        pairs = sorted((word, rank) for rank, word in enumerate(words))
        return cls([word for word, _ in pairs], np.array([rank for _, rank in pairs], np.int64))


@dataclass
class WordMarker:
    """Marks the words of a text that arrives in parts, each word once it is complete.

    The letters of an incomplete word are kept as a list of parts: to search the joined word again with each part
    would take quadratic time for a word without end.
    """

    known: WordList
    _begun: list[str] = field(default_factory=list, init=False)  # the incomplete word, in parts
    _read: int = field(default=0, init=False)

    def feed(self, text: str, check_cancelled: CancelCheck = never_cancelled) -> list[Mark]:
        """The marks of the words that `text` completes; `check_cancelled` is called before each."""
        marks: list[Mark] = []
        start = self._read
        self._read += len(text)
        rest = 0
        if self._begun:
            match = _rest_pattern().match(text)
            rest = match.end() if match else 0
            self._begun.append(text[:rest])
            if rest == len(text):
                return []
            marks += self._mark_begun(start + rest)
        for word in find_words(text, start, rest):
            check_cancelled()
            if word.end == self._read:
                self._begun = [word.text]
            elif word.is_short:
                marks.append(self.known.mark(word))
        return marks

    def finish(self) -> list[Mark]:
        """The last word, if the text ended in it and it is real: a word that the end cuts off is not invented."""
        return [mark for mark in self._mark_begun(self._read) if mark.real]

    def _mark_begun(self, end: int) -> list[Mark]:
        """The mark of the incomplete word, which ends at `end`; none if it is too long for a word."""
        begun = "".join(self._begun)
        self._begun = []
        word = Word(end - len(begun), end, begun)
        return [self.known.mark(word)] if word.is_short else []


def mark_words(text: str, known: WordList, check_cancelled: CancelCheck = never_cancelled) -> list[Mark]:
    """Every word of a whole text, as `WordMarker` would mark them."""
    marker = WordMarker(known)
    return marker.feed(text, check_cancelled) + marker.finish()


def find_words(text: str, first: int = 0, start: int = 0) -> Iterator[Word]:
    """The words in their order, from the character `start` on.

    Args:
        first: the position of this text in a longer one.
    """
    for match in _pattern().finditer(text, start):
        yield Word(first + match.start(), first + match.end(), match.group())


@cache
def _pattern() -> re.Pattern[str]:
    """Matches a word: a letter, then letters, marks and joiners."""
    return re.compile(rf"[^\W\d_]{_rest_pattern().pattern}")


@cache
def _rest_pattern() -> re.Pattern[str]:
    """Matches the rest of a word after its beginning."""
    return re.compile(rf"(?:[^\W\d_]|[{_marks()}\u200c\u200d])*")


@cache
def _many_marks() -> re.Pattern[str]:
    """Matches more marks in a row than any script has (Unicode's annex 15 allows 30)."""
    return re.compile(rf"[{_marks()}]{{{MAX_MARKS + 1}}}")


@cache
def _marks() -> str:
    """The characters of Unicode's category M, for which `re` has no class."""
    return "".join(chr(point) for point in range(0x10000) if unicodedata.category(chr(point)).startswith("M"))
