"""The form of a text: speakers and speeches, lines, verse or prose, brackets and quotes.

A play is written as Shakespeare's are in the bundled training text: a name and a colon on a line of their own after
an empty line, then what is said. Whether a text is one is asked of the training text only, where it is plain.
"""

import re
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

Form = Literal["verse", "prose", "mixed"]
HEADING = re.compile(r"^([^\W\d_][^\n:.!?;,]{0,39}):$", re.MULTILINE)
PLAY = 0.05  # headings per line from which a text is a play; in Shakespeare's 0.22
MIN_LINES = 3  # that go on with a sentence, to tell verse from prose
SENTENCE_ENDS = tuple(".!?…。！？:")
# What may close each sign; a guillemet or a German quotation mark opens in one language and closes in another.
CLOSES = {")": "(", "]": "[", "}": "{", "”": "“„", "“": "„", "»": "«", "«": "»", '"': '"'}
OPENS = frozenset('([{“„«»"')


@dataclass(frozen=True)
class Speaker:
    """One who speaks: whether the training text has the name, and how much this text gives them to say."""

    name: str
    known: bool
    speeches: int
    characters: int


@dataclass(frozen=True)
class Structure:
    """The form of a text.

    Attributes:
        speakers: in the order of their entrance; none in a text that is no play.
        lines: neither empty nor headings.
        line_length: their mean, in characters; None without lines.
        verse: of the lines that go on with a sentence, the share that begin with a capital; None where too few do.
        unmatched: places of brackets and quotes without a partner.
        matched: pairs of them.
    """

    speakers: tuple[Speaker, ...]
    lines: int
    line_length: float | None
    verse: float | None
    unmatched: tuple[int, ...]
    matched: int

    @property
    def speeches(self) -> int:
        """Of all speakers."""
        return sum(speaker.speeches for speaker in self.speakers)

    @property
    def form(self) -> Form | None:
        """In verse each line begins with a capital, whatever the sentence does."""
        if self.verse is None:
            return None
        return "verse" if self.verse > 0.8 else "prose" if self.verse < 0.2 else "mixed"


def analyse(text: str, known: Collection[str]) -> Structure:
    """The form of `text`, whose speakers may be `known`; if none are, it is no play."""
    known = frozenset(known)
    headings = find_headings(text) if known else []
    ends = [*(heading.start() for heading in headings[1:]), len(text)]
    said: Counter[str] = Counter()
    for heading, end in zip(headings, ends, strict=False):  # without headings there is one end
        said[heading[1]] += len(text[heading.end() : end].strip())
    times = Counter(heading[1] for heading in headings)
    speakers = tuple(Speaker(name, name in known, times[name], said[name]) for name in times)
    lines = _lines(text, {heading.start() for heading in headings})
    lengths = [len(line) for line in lines if line]
    unmatched, matched = balance(text)
    mean = sum(lengths) / len(lengths) if lengths else None
    return Structure(speakers, len(lengths), mean, _verse(lines), tuple(unmatched), matched)


def find_speakers(text: str) -> tuple[str, ...]:
    """The speakers of a training text, those who speak most often first; none if it is no play."""
    counts = Counter(heading[1] for heading in find_headings(text))
    if counts.total() < PLAY * sum(1 for line in text.splitlines() if line.strip()):
        return ()
    return tuple(sorted(counts, key=lambda name: (-counts[name], name)))


def find_headings(text: str) -> list[re.Match[str]]:
    """The lines that name who speaks next; group 1 is the name."""
    return [
        heading
        for heading in HEADING.finditer(text)
        if not heading[1][0].islower() and text[max(0, heading.start() - 2) : heading.start()] in ("", "\n", "\n\n")
    ]


def balance(text: str) -> tuple[list[int], int]:
    """Places of brackets and quotes without a partner, and the number of pairs. Straight quotes end with a
    paragraph; apostrophes are not quotes.

    Each sign is put on the stack once and taken off once, so the time is linear whatever the text is.
    """
    opened: list[tuple[str, int]] = []
    still_open: Counter[str] = Counter()  # the signs on the stack
    unmatched: list[int] = []
    matched = 0
    paragraph = 0
    for match in re.finditer(r'[()\[\]{}“”„«»"]|\n\s*\n', text):
        sign = match[0]
        place = match.start()
        if sign[0] == "\n":
            paragraph = place
            continue
        while opened and opened[-1][0] == '"' and opened[-1][1] < paragraph:  # ended with its paragraph
            unmatched.append(_pop(opened, still_open))
        partners = CLOSES.get(sign, "")
        if opened and opened[-1][0] in partners:
            _pop(opened, still_open)
            matched += 1
        elif sign in OPENS:
            opened.append((sign, place))
            still_open[sign] += 1
        elif any(still_open[partner] for partner in partners):
            while opened[-1][0] not in partners:
                unmatched.append(_pop(opened, still_open))
            _pop(opened, still_open)
            matched += 1
        else:
            unmatched.append(place)
    unmatched += [place for _, place in opened]
    return sorted(unmatched), matched


def _pop(opened: list[tuple[str, int]], still_open: Counter[str]) -> int:
    """Take the last sign off the stack; return its place."""
    sign, place = opened.pop()
    still_open[sign] -= 1
    return place


def _lines(text: str, headings: Collection[int]) -> list[str]:
    """The lines without white space around them; an empty one for each heading."""
    lines, start = [], 0
    for line in text.split("\n"):
        lines.append("" if start in headings else line.strip())
        start += len(line) + 1
    return lines


def _verse(lines: list[str]) -> float | None:
    """The share of lines within a sentence that begin with a capital."""
    begun = [
        line
        for before, line in pairwise(lines)
        if before and not before.endswith(SENTENCE_ENDS) and line and line[0].isalpha()
    ]
    cased = [line[0].isupper() for line in begun if line[0].isupper() or line[0].islower()]
    return sum(cased) / len(cased) if len(cased) >= MIN_LINES else None
