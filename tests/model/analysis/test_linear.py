"""No text costs more than its length.

A report of 100,000 opening brackets took over 200 s of a core, one of as many letters 61 s: each bracket was looked
for among all that were open, and a word was cut at each of its characters to find the words that it is like. Each
step is linear now, or n log n. Costs are measured by the thread's own CPU time, as multiples of an ordinary text's.
"""

import random
import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.analysis.overlap import CopiedRun, non_overlapping
from model.analysis.structure import CLOSES, OPENS, balance
from model.analysis.suffix_array import Source
from model.analysis.words import Likeness, Ordered, WordList, WordMarker
from tests.model.analysis.test_report import compared_checkpoint
from tests.tiny import VOCABULARY, report_of, tiny_play

SIZE = 40_000
MAX_COST = 15  # times an ordinary text's; the quadratic ones took 50 to 1,000 times as much
ORDINARY = tiny_play(5, 600)[:SIZE]
RANDOM = random.Random(0)


def repeated(part: str) -> str:
    return (part * (SIZE // len(part) + 1))[:SIZE]


TEXTS = {
    "opening": repeated("("),
    "closing": repeated(")"),
    "pairs": repeated("()"),
    "nested": "(" * (SIZE // 2) + ")" * (SIZE // 2),
    "crossed": "(" * (SIZE // 2) + "]" * (SIZE // 2),
    "paragraphs": repeated('("\n\n'),
    "quotes": repeated('"'),
    "german": repeated("„«»“"),
    "lines": repeated("\n"),
    "blank lines": repeated("\n \t"),
    "capitals": repeated("A"),
    "one word": repeated("a"),
    "a known word again and again": repeated("window"),
    "no spaces": "".join(ORDINARY.split()),
    "short words": repeated("xq "),
    "speakers": "".join(f"Aa{chr(97 + n % 26)}{chr(97 + n // 26 % 26)}:\n\n" for n in range(SIZE // 7)),
    "marks": "a" + repeated("\u0315\u0300"),
    "joined": repeated("\u200d"),
    "vocabulary": "".join(RANDOM.choices(VOCABULARY.characters, k=SIZE)),
    "unicode": "".join(map(chr, RANDOM.choices(range(0x20, 0xD800), k=SIZE))),
    "emoji": repeated("😀"),
    "zeros": repeated("\0"),
}


def cost(work: Callable[[], object]) -> float:
    """CPU seconds of this thread."""
    begun = time.thread_time()
    work()
    return time.thread_time() - begun


@pytest.fixture(scope="module")
def ordinary() -> float:
    """The cost of an ordinary text's report."""
    report_of(ORDINARY, compared_checkpoint())  # compiles
    return max(cost(lambda: report_of(ORDINARY, compared_checkpoint())) for _ in range(3))


@pytest.mark.parametrize("name", TEXTS)
def test_no_text_costs_many_times_what_an_ordinary_one_does(name: str, ordinary: float) -> None:
    assert cost(lambda: report_of(TEXTS[name], compared_checkpoint(), 2.0).content()) < MAX_COST * ordinary


@pytest.mark.parametrize("name", ["one word", "marks", "capitals", "vocabulary"])
def test_nor_does_one_that_is_fed_character_by_character(name: str) -> None:
    """All letters of an incomplete word were read again with each further character."""

    def mark(text: str) -> None:
        marker = WordMarker(compared_checkpoint().require_index().words)
        for character in text:
            marker.feed(character)
        marker.finish()

    mark(ORDINARY)
    assert cost(lambda: mark(TEXTS[name])) < MAX_COST * cost(lambda: mark(ORDINARY))


@pytest.mark.parametrize("text", [repeated("a"), repeated("ab"), ORDINARY])
def test_nor_does_one_that_is_copied_from_end_to_end(text: str) -> None:
    """The search advanced by one character a step, at all positions of the text: a step for each of the match's."""
    source = Source(text)
    source.lengths("warm")
    other = "".join(RANDOM.choices("ab", k=SIZE))
    assert cost(lambda: source.lengths(text)) < 4 * MAX_COST * cost(lambda: Source(text).lengths(other))


def test_overlapping_runs_are_dropped_without_looking_at_each_character() -> None:
    runs = [CopiedRun(start, start + SIZE) for start in range(SIZE)]
    assert non_overlapping(runs) == [runs[0]]
    shorter = [CopiedRun(start, start + 10) for start in range(0, SIZE, 10)]
    assert non_overlapping(shorter + runs[:1]) == runs[:1]


def balance_by_search(text: str) -> tuple[list[int], int]:
    """The same by a search through all open signs."""
    opened: list[tuple[str, int]] = []
    unmatched: list[int] = []
    matched = 0
    for place, sign in enumerate(text):
        if text[place : place + 2] == "\n\n":
            unmatched += [at for straight, at in opened if straight == '"']
            opened = [one for one in opened if one[0] != '"']
        partners = [i for i, (other, _) in enumerate(reversed(opened)) if other in CLOSES.get(sign, "")]
        if partners and (partners[0] == 0 or sign not in OPENS):
            first = len(opened) - partners[0]
            unmatched += [at for _, at in opened[first:]]
            del opened[first - 1 :]
            matched += 1
        elif sign in OPENS:
            opened.append((sign, place))
        elif sign in CLOSES:
            unmatched.append(place)
    return sorted(unmatched + [place for _, place in opened]), matched


@given(st.text(st.sampled_from('()[]“”„«»"a\n')))
def test_signs_find_the_partners_that_a_search_finds(text: str) -> None:
    assert balance(text) == balance_by_search(text)


@given(st.lists(st.text("abc", min_size=1, max_size=5), unique=True), st.text("abc", max_size=6))
def test_a_word_is_like_the_one_that_a_search_finds(words: list[str], key: str) -> None:
    known = WordList(tuple(words))
    shared = [
        max(n for n in range(len(key) + 1) if word.startswith(key[:n]))  # of each word
        for word in words
    ]
    most = max(shared, default=0)
    expected = Likeness(words[shared.index(most)], most) if most >= 2 else None
    assert known._likest(Ordered.of(words), key) == expected
