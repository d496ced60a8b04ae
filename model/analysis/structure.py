"""The form of a text: speakers and speeches, lines, verse or prose, brackets and quotes.

A play is written as in the bundled training text: a name and a colon on a line of their own after an empty line,
then what is said. Whether the training text is a play decides it for every text, since it is long enough to tell.
"""

import re
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, NamedTuple

Form = Literal["verse", "prose", "mixed"]
HEADING = re.compile(r"^([^\W\d_][^\n:.!?;,]{0,39}):$", re.MULTILINE)
MIN_HEADINGS_PER_LINE = 0.05  # of a play; Shakespeare's have 0.22
MIN_LINES = 3  # that go on with a sentence, to tell verse from prose
MIN_VERSE = 0.8  # share of capitals from which a text is verse
MAX_PROSE = 0.2  # and up to which it is prose
SENTENCE_ENDS = tuple(".!?…。！？:")
# Which signs each sign may close; a guillemet or a German quotation mark opens or closes, by the language.
CLOSES = {")": "(", "]": "[", "}": "{", "”": "“„", "“": "„", "»": "«", "«": "»", '"': '"'}
OPENS = frozenset('([{“„«»"')


@dataclass(frozen=True)
class Speaker:
    """A speaker of a play, and how much the text gives them to say."""

    name: str
    known: bool  # whether the training text has the name
    speeches: int
    characters: int


@dataclass(frozen=True)
class Structure:
    """The form of a text.

    Attributes:
        speakers: in the order of their first speeches; none in a text that is no play.
        lines: how many are neither empty nor headings.
        line_length: their mean, in characters; None without lines.
        verse: of the lines that go on with a sentence, the share that begin with a capital; None where too few do.
        unmatched: positions of brackets and quotes without a partner.
        matched: how many pairs of them have one.
    """

    speakers: tuple[Speaker, ...]
    lines: int
    line_length: float | None
    verse: float | None
    unmatched: tuple[int, ...]
    matched: int

    @property
    def speeches(self) -> int:
        """The number of speeches of all speakers."""
        return sum(speaker.speeches for speaker in self.speakers)

    @property
    def form(self) -> Form | None:
        """Verse or prose: in verse each line begins with a capital, also in the middle of a sentence."""
        if self.verse is None:
            return None
        if self.verse > MIN_VERSE:
            return "verse"
        return "prose" if self.verse < MAX_PROSE else "mixed"


def analyse(text: str, known: Collection[str]) -> Structure:
    """The form of `text`.

    Args:
        known: the speakers of the training text; without any, no text is a play.
    """
    known = frozenset(known)
    headings = find_headings(text) if known else []
    speeches: Counter[str] = Counter()
    characters: Counter[str] = Counter()
    for i, heading in enumerate(headings):
        end = headings[i + 1].start() if i + 1 < len(headings) else len(text)
        speeches[heading[1]] += 1
        characters[heading[1]] += len(text[heading.end() : end].strip())
    speakers = tuple(Speaker(name, name in known, speeches[name], characters[name]) for name in speeches)
    lines = _lines(text, {heading.start() for heading in headings})
    lengths = [len(line) for line in lines if line]
    unmatched, matched = balance(text)
    return Structure(
        speakers=speakers,
        lines=len(lengths),
        line_length=sum(lengths) / len(lengths) if lengths else None,
        verse=_verse(lines),
        unmatched=tuple(unmatched),
        matched=matched,
    )


def find_speakers(text: str) -> tuple[str, ...]:
    """The speakers of a training text, those who speak most often first; none if it is no play."""
    counts = Counter(heading[1] for heading in find_headings(text))
    lines = sum(1 for line in text.splitlines() if line.strip())
    if counts.total() < MIN_HEADINGS_PER_LINE * lines:
        return ()
    return tuple(sorted(counts, key=lambda name: (-counts[name], name)))


def find_headings(text: str) -> list[re.Match[str]]:
    """The lines that name the next speaker; group 1 is the name."""
    headings: list[re.Match[str]] = []
    for match in HEADING.finditer(text):
        before = text[max(0, match.start() - 2) : match.start()]
        if before in ("", "\n", "\n\n") and not match[1][0].islower():
            headings.append(match)
    return headings


def balance(text: str) -> tuple[list[int], int]:
    """The positions of brackets and quotes without a partner, and the number of pairs.

    Straight quotes end with their paragraph; apostrophes are not quotes. Each sign is pushed once and popped once,
    so the time is linear in the text's length.
    """
    opened: list[OpenSign] = []  # a stack
    still_open: Counter[str] = Counter()  # how many of each sign are on the stack
    unmatched: list[int] = []
    matched = 0
    paragraph = 0
    for match in re.finditer(r'[()\[\]{}“”„«»"]|\n\s*\n', text):
        sign = match[0]
        position = match.start()
        if sign[0] == "\n":
            paragraph = position
            continue
        while opened and opened[-1].sign == '"' and opened[-1].position < paragraph:  # ended with its paragraph
            unmatched.append(_pop(opened, still_open))
        partners = CLOSES.get(sign, "")
        if opened and opened[-1].sign in partners:
            _pop(opened, still_open)
            matched += 1
        elif sign in OPENS:
            opened.append(OpenSign(sign, position))
            still_open[sign] += 1
        elif any(still_open[partner] for partner in partners):
            while opened[-1].sign not in partners:
                unmatched.append(_pop(opened, still_open))
            _pop(opened, still_open)
            matched += 1
        else:
            unmatched.append(position)
    unmatched += [sign.position for sign in opened]
    return sorted(unmatched), matched


class OpenSign(NamedTuple):
    """An opening bracket or quote that is not closed yet."""

    sign: str
    position: int


def _pop(opened: list[OpenSign], still_open: Counter[str]) -> int:
    """Take the last sign off the stack; return its position."""
    last = opened.pop()
    still_open[last.sign] -= 1
    return last.position


def _lines(text: str, headings: Collection[int]) -> list[str]:
    """The lines without white space around them; an empty one for each heading.

    Args:
        headings: the positions of their beginnings.
    """
    lines: list[str] = []
    start = 0
    for line in text.split("\n"):
        lines.append("" if start in headings else line.strip())
        start += len(line) + 1
    return lines


def _verse(lines: list[str]) -> float | None:
    """The share of lines that begin with a capital, of those that begin in the middle of a sentence with a letter.

    None if these are too few. Letters without case, such as Chinese ones, do not count.
    """
    capitals = 0
    counted = 0
    for before, line in pairwise(lines):
        if not line or not before or before.endswith(SENTENCE_ENDS):
            continue
        if line[0].isalpha() and (line[0].isupper() or line[0].islower()):
            counted += 1
            capitals += line[0].isupper()
    return capitals / counted if counted >= MIN_LINES else None
