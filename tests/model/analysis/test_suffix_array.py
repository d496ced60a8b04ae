import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.analysis.suffix_array import Source

TEXTS = st.text(st.sampled_from("ab😀"), max_size=40) | st.text(max_size=20)


@given(TEXTS, TEXTS)
def test_lengths_are_those_of_a_search_for_every_run(source: str, text: str) -> None:
    expected = [
        max(length for length in range(end + 1) if text[end - length : end] in source)
        for end in range(1, len(text) + 1)
    ]
    assert Source(source).lengths(text).tolist() == expected


@pytest.mark.parametrize(("passage", "place"), [("be", 3), ("to be", 0), ("😀", 6), ("not", None), ("", 0)])
def test_a_place_is_the_first_in_characters(passage: str, place: int | None) -> None:
    assert Source("to be 😀 to be").find(passage) == place
