import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.errors import UnknownCharactersError
from model.vocabulary import Vocabulary
from tests.tiny import VOCABULARY


@given(st.text("".join(VOCABULARY.characters)))
def test_decoding_undoes_encoding(text: str) -> None:
    assert VOCABULARY.decode(VOCABULARY.encode(text)) == text


@given(st.characters())
def test_a_replacement_can_always_be_written(character: str) -> None:
    assert VOCABULARY.encode(VOCABULARY.replacement(character))


@pytest.mark.parametrize(
    ("character", "replacement"),
    [("ñ", "n"), ("’", "'"), ("é", "e"), ("日", "?"), ("—", "--"), ("…", "..."), ("æ", "ae"), ("\t", "  ")],
)
def test_a_replacement_is_near(character: str, replacement: str) -> None:
    assert VOCABULARY.replacement(character) == replacement


def test_a_text_of_one_case_gets_that_case() -> None:
    assert Vocabulary("abc").replacement("B") == "b"


def test_every_unknown_character_is_named_with_its_position() -> None:
    with pytest.raises(UnknownCharactersError) as caught:
        VOCABULARY.encode("日本 ma\u00f1ana", "prompt")
    assert [(one.character, one.position) for one in caught.value.unknown] == [("日", 0), ("本", 1), ("ñ", 5)]
    assert caught.value.field == "prompt"


@pytest.mark.parametrize(
    ("characters", "prompt"),
    [
        ("\n ab", "\n"),
        ("\t\nab", "\n"),
        (" ab", " "),
        ("\tab c", " "),
        ("ACGT", "A"),
        ("\tab", "\t"),
        ("。一二", "。"),
    ],
)
def test_every_vocabulary_has_something_to_begin_with(characters: str, prompt: str) -> None:
    """A model of a text without line breaks (DNA, a text on one line) could not begin: the default was a line
    break, wherever it was written down. Now the vocabulary says it, and everybody asks there.
    """
    vocabulary = Vocabulary(characters)
    assert vocabulary.default_prompt == prompt
    assert vocabulary.encode(prompt)


@pytest.mark.parametrize(
    ("known", "typed", "found"),
    [
        ("n\u0303a", "\u00f1a", [("\u00f1", 0, "n\u0303")]),
        ("\u00f1na", "n\u0303a\u00f1n\u0303", [("n\u0303", 0, "\u00f1"), ("n\u0303", 4, "\u00f1")]),
        ("abx?", "ax\u0303b", [("x\u0303", 1, "x")]),
        ("\u1112\u1161\u11ab", "\ud55c", [("\ud55c", 0, "\u1112\u1161\u11ab")]),
        ("\ud55c", "\ud55c\u1112\u1161\u11ab", [("\u1112\u1161\u11ab", 1, "\ud55c")]),
        ("n\u0303", "N\u0303", [("N\u0303", 0, "n\u0303")]),
        ("\u00f1o", "\u00d1O", [("\u00d1", 0, "\u00f1"), ("O", 1, "o")]),
        ("\u1ec7", "e\u0323\u0302", [("e\u0323\u0302", 0, "\u1ec7")]),
        ("fi", "\ufb01", [("\ufb01", 0, "fi")]),
        ("a ", "a\n", [("\n", 1, " ")]),
        ("ab", "\U0001f600a\u65e5", [("\U0001f600", 0, "a"), ("\u65e5", 2, "a")]),
    ],
)
def test_the_same_character_is_suggested_in_the_form_that_the_model_knows(
    known: str, typed: str, found: list[tuple[str, int, str]]
) -> None:
    """For \u00f1 a model trained on decomposed text suggested n, and the other way round only the lone mark was
    named, to be replaced by "?": each code point was looked at alone, and only in the compatibility form without
    marks. Now a character and its marks are one, and composed and decomposed forms come first.
    """
    vocabulary = Vocabulary(known)
    unknown = vocabulary.find_unknown(typed)
    assert [(one.character, one.position, one.replacement) for one in unknown] == found
    for one in reversed(unknown):
        typed = typed[: one.position] + one.replacement + typed[one.position + len(one.character) :]
    assert vocabulary.encode(typed)


def test_forms_that_look_alike_are_told_by_their_numbers() -> None:
    with pytest.raises(UnknownCharactersError, match=r"U\+006E U\+0303 \(position 0\); use .*, U\+00F1 instead"):
        Vocabulary("\u00f1").encode("n\u0303")


def test_marks_without_end_are_found_piece_by_piece() -> None:
    found = Vocabulary("a").find_unknown("a" + "\u0303" * 100)
    assert "".join(one.character for one in found) == "a" + "\u0303" * 100
    assert max(len(one.character) for one in found) == 31
