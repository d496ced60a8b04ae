from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.analysis.words import Likeness, Mark, Word, WordList, WordMarker, find_words, mark_words

KNOWN = WordList.of("The the THE antique pirate. An irate pirate's love, on fire! Café; naïve हिन्दी")
TEXTS = st.text(st.sampled_from("ab é́ 'Ж日ि\u200d.\n"), max_size=40) | st.text(max_size=20)


def test_words_are_runs_of_letters_with_their_marks() -> None:
    found = [word.text for word in find_words("O'er cafe\u0301, x_2y हिन्दी\u2019s naïve")]
    assert found == ["O", "er", "cafe\u0301", "x", "y", "हिन्दी", "s", "naïve"]


def test_the_list_has_the_commonest_first_and_one_entry_for_every_spelling() -> None:
    assert KNOWN.words[:2] == ("the", "pirate")
    assert all(mark.real for mark in mark_words("the THE cafe\u0301 CAFÉ Naïve ", KNOWN))


@pytest.mark.parametrize(
    ("invented", "begins_like", "ends_like"),
    [
        ("antiate", Likeness("antique", 4), Likeness("pirate", 3)),  # of "pirate" and "irate" the commoner
        ("Loveire", Likeness("love", 4), Likeness("fire", 3)),
        ("thepirate", Likeness("the", 3), Likeness("pirate", 6)),
        ("zz", None, None),
        ("q", None, None),
    ],
)
def test_an_invented_word_is_like_those_that_share_most_of_it(
    invented: str, begins_like: Likeness | None, ends_like: Likeness | None
) -> None:
    word = Word(0, len(invented), invented)
    assert KNOWN.mark(word) == Mark(word, False, begins_like, ends_like)


@given(TEXTS, st.lists(st.integers(0, 40)))
def test_a_text_fed_in_parts_has_the_marks_of_the_whole(text: str, cuts: list[int]) -> None:
    marker = WordMarker(KNOWN)
    marks: list[Mark] = []
    for start, end in pairwise([0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]):
        marks += marker.feed(text[start:end])
    marks += marker.finish()
    assert marks == mark_words(text, KNOWN)
    assert all(text[mark.word.start : mark.word.end] == mark.word.text for mark in marks)


def test_what_the_end_cuts_off_is_not_invented() -> None:
    assert [mark.word.text for mark in mark_words("pirate antiq", KNOWN)] == ["pirate"]
    assert [mark.word.text for mark in mark_words("antiq pirate", KNOWN)] == ["antiq", "pirate"]
    assert mark_words("", KNOWN) == []
    assert [mark.real for mark in mark_words("word ", WordList(()))] == [False]


@pytest.mark.parametrize("text", ["ACGT" * 5000, "日本語のひとつづきの文章" * 500, "a" + "\u0301" * 10_000])
def test_a_text_without_word_breaks_is_no_word(text: str) -> None:
    """A model of DNA carried its whole training text with it: one run of letters was one word, and the list of
    words lies in the index that anyone may download. A word has a greatest length now.
    """
    assert WordList.of(f"{text} {text[:9]}").words == WordList.of(text[:9]).words
    assert [mark.word.text for mark in mark_words(f"{text} the {text}", KNOWN)] == ["the"]
