"""The words of a text: which of them the training text has, and what the invented ones are like.

A word is a run of letters, with the marks that belong to them; "o'er" is two. Upper and lower case are one.
"""

import re
import unicodedata
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache, cached_property

LAST = "\U0010ffff"  # comes after every word that begins alike


@dataclass(frozen=True)
class Word:
    """A word and its place in a text, in characters; `end` is the first after it."""

    start: int
    end: int
    text: str

    @property
    def key(self) -> str:
        """The same for every spelling that counts as this word."""
        return unicodedata.normalize("NFC", self.text.casefold())


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
        counts = Counter(word.key for word in find_words(text))
        return cls(tuple(sorted(counts, key=lambda word: (-counts[word], word))))

    def mark(self, word: Word) -> Mark:
        """What is known of a word."""
        key = word.key
        if key in self._known:
            return Mark(word, True)
        return Mark(word, False, self._likest(self._beginnings, key), self._likest(self._ends, key[::-1]))

    def _likest(self, ordered: list[tuple[str, int]], key: str) -> Likeness | None:
        """The commonest of the words that begin, as spelt in `ordered`, as `key` does for as long as any does."""
        for shared in range(len(key), 1, -1):
            first = bisect_left(ordered, (key[:shared],))
            last = bisect_left(ordered, (key[:shared] + LAST,), first)
            if first < last:
                return Likeness(self.words[min(rank for _, rank in ordered[first:last])], shared)
        return None

    @cached_property
    def _known(self) -> frozenset[str]:
        return frozenset(self.words)

    @cached_property
    def _beginnings(self) -> list[tuple[str, int]]:
        return sorted((word, rank) for rank, word in enumerate(self.words))

    @cached_property
    def _ends(self) -> list[tuple[str, int]]:
        return sorted((word[::-1], rank) for rank, word in enumerate(self.words))


@dataclass
class WordMarker:
    """Marks the words of a text that comes in pieces, each once it is complete."""

    known: WordList
    _begun: str = field(default="", init=False)  # the letters at the end of what has come
    _read: int = field(default=0, init=False)

    def extend(self, text: str) -> list[Mark]:
        """The words that are complete now that `text` has come."""
        start, text = self._read - len(self._begun), self._begun + text
        self._read = start + len(text)
        found = list(find_words(text, start))
        self._begun = found.pop().text if found and found[-1].end == self._read else ""
        return [self.known.mark(word) for word in found]

    def finish(self) -> list[Mark]:
        """The last word, if the text ended in it and it is real: what the end has cut off was not invented."""
        begun, self._begun = self._begun, ""
        mark = self.known.mark(Word(self._read - len(begun), self._read, begun))
        return [mark] if mark.real else []


def mark_words(text: str, known: WordList) -> list[Mark]:
    """Every word of a whole text, as `WordMarker` would mark them."""
    marker = WordMarker(known)
    return marker.extend(text) + marker.finish()


def find_words(text: str, first: int = 0) -> Iterator[Word]:
    """The words in their order; `first` is the place of the first character."""
    for match in _pattern().finditer(text):
        yield Word(first + match.start(), first + match.end(), match.group())


@cache
def _pattern() -> re.Pattern[str]:
    """A letter, then letters, and marks and joiners, which `re` has no name for."""
    marks = [chr(point) for point in range(0x10000) if unicodedata.category(chr(point)).startswith("M")]
    return re.compile(rf"[^\W\d_](?:[^\W\d_]|[{''.join(marks)}\u200c\u200d])*")
