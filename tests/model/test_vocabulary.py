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
