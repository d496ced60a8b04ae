"""The words of a text: which of them the training text has, and what the invented ones are like.

A word is a run of letters, with the marks that belong to them; "o'er" is two. Upper and lower case are one. A run
of more than `MAX_LETTERS` is no word, such as DNA or a script without spaces: a list of such "words" would be the
training text itself, which nothing that is served may hold.
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

LAST = "\U0010ffff"  # comes after every word that begins alike
MIN_SHARED = 2  # characters that an invented word shares with one that it is like
MAX_MARKS = 30  # in a row
MAX_LETTERS = 50  # in a word, marks included; the longest in an English dictionary has 45


@dataclass(frozen=True)
class Word:
    """A word and its place in a text, in characters; `end` is the first after it."""

    start: int
    end: int
    text: str

    @property
    def is_short(self) -> bool:
        """Whether it can be a word."""
        return len(self.text) <= MAX_LETTERS

    @cached_property
    def key(self) -> str:
        """The same for every spelling that counts as this word.

        To sort marks into their order takes quadratic time in the length of their run, and no word has a long one.
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
    """What is known of one word of a text: whether the training text has it, and if not, which words it is like.

    `begins_like` shares its beginning, `ends_like` its end: as much of it as any real word does, and of those words
    it is the commonest. None where not even two characters are shared, and for a word that is real.
    """

    word: Word
    real: bool
    begins_like: Likeness | None = None
    ends_like: Likeness | None = None


@dataclass(frozen=True)
class WordList:
    """The words of the training text, as `Word.key`, the commonest first."""

    words: tuple[str, ...]

    @classmethod
    def of(cls, text: str) -> "WordList":
        """Those of a training text; equally common ones in alphabetical order."""
        counts = Counter(word.key for word in find_words(text) if word.is_short)
        return cls(tuple(sorted(counts, key=lambda word: (-counts[word], word))))

    def mark(self, word: Word) -> Mark:
        """What is known of a word."""
        key = word.key
        if key in self._known:
            return Mark(word, True)
        return Mark(word, False, self._likest(self._beginnings, key), self._likest(self._ends, key[::-1]))

    def _likest(self, ordered: "Ordered", key: str) -> Likeness | None:
        """The commonest of the words that begin, as spelt in `ordered`, as `key` does for as long as any does.

        Of all words, those that share most with `key` stand next to its place in their order.
        """
        place = bisect_left(ordered.spellings, key)
        neighbours = ordered.spellings[max(0, place - 1) : place + 1]
        shared = max([_shared(key, one) for one in neighbours], default=0)
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


def _shared(one: str, other: str) -> int:
    """How many characters both begin with."""
    for place, (mine, theirs) in enumerate(zip(one, other, strict=False)):
        if mine != theirs:
            return place
    return min(len(one), len(other))


@dataclass(frozen=True)
class Ordered:
    """Words in alphabetical order, and the rank (N,) of each: 0 for the commonest."""

    spellings: list[str]
    ranks: NDArray[np.int64]

    @classmethod
    def of(cls, words: Sequence[str]) -> "Ordered":
        """Of words that come in the order of their ranks."""
        pairs = sorted((word, rank) for rank, word in enumerate(words))
        return cls([word for word, _ in pairs], np.array([rank for _, rank in pairs], np.int64))


@dataclass
class WordMarker:
    """Marks the words of a text that comes in pieces, each once it is complete.

    The letters of a word that is not complete are kept as they came: to look at them again with each piece would
    take quadratic time for a word without end.
    """

    known: WordList
    _begun: list[str] = field(default_factory=list, init=False)  # the letters at the end of what has come
    _read: int = field(default=0, init=False)

    def extend(self, text: str, check_cancelled: CancelCheck = never_cancelled) -> list[Mark]:
        """The words that are complete now that `text` has come; `check_cancelled` is called with each."""
        marks = []
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
        """The last word, if the text ended in it and it is real: what the end has cut off was not invented."""
        return [mark for mark in self._mark_begun(self._read) if mark.real]

    def _mark_begun(self, end: int) -> list[Mark]:
        """The mark of the word that was begun and ends here, if it is one."""
        begun = "".join(self._begun)
        self._begun = []
        word = Word(end - len(begun), end, begun)
        return [self.known.mark(word)] if word.is_short else []


def mark_words(text: str, known: WordList, check_cancelled: CancelCheck = never_cancelled) -> list[Mark]:
    """Every word of a whole text, as `WordMarker` would mark them."""
    marker = WordMarker(known)
    return marker.extend(text, check_cancelled) + marker.finish()


def find_words(text: str, first: int = 0, start: int = 0) -> Iterator[Word]:
    """The words in their order, from the character `start` on; `first` is the place of the first character."""
    for match in _pattern().finditer(text, start):
        yield Word(first + match.start(), first + match.end(), match.group())


@cache
def _pattern() -> re.Pattern[str]:
    """A letter, then letters, and marks and joiners."""
    return re.compile(rf"[^\W\d_]{_rest_pattern().pattern}")


@cache
def _rest_pattern() -> re.Pattern[str]:
    """What a word may go on with."""
    return re.compile(rf"(?:[^\W\d_]|[{_marks()}\u200c\u200d])*")


@cache
def _many_marks() -> re.Pattern[str]:
    """More marks in a row than any writing has (Unicode's annex 15 allows 30)."""
    return re.compile(rf"[{_marks()}]{{{MAX_MARKS + 1}}}")


@cache
def _marks() -> str:
    """The marks that belong to letters, which `re` has no name for."""
    return "".join(chr(point) for point in range(0x10000) if unicodedata.category(chr(point)).startswith("M"))
