import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.analysis.repetition import Loop, distinct, find_loops


@pytest.mark.parametrize(
    ("text", "loops"),
    [
        ("Well. " + "I will go. " * 3, [Loop(4, 39, 11)]),  # the space before it is said again too
        ("x" * 17, [Loop(0, 17, 1)]),
        ("x" * 16, []),
        ("ha " * 6, []),  # a figure of speech
        ("once upon a time. " * 2, [Loop(0, 36, 18)]),
        ("once upon a time. And once upon a time. ", []),
        ("😀é日" * 10 + "-" + "never " * 9, [Loop(0, 30, 3), Loop(31, 85, 6)]),
        ("", []),
        ("a", []),
    ],
)
def test_loops_are_found_with_their_period(text: str, loops: list[Loop]) -> None:
    assert find_loops(text) == loops


@given(st.text(max_size=20), st.text(min_size=1, max_size=30), st.integers(2, 5), st.text(max_size=20))
def test_what_comes_again_at_once_is_found_and_nothing_else(before: str, said: str, times: int, after: str) -> None:
    text = before + said * times + after
    loops = find_loops(text)
    for loop in loops:
        assert text[loop.start + loop.period : loop.end] == text[loop.start : loop.end - loop.period]
        assert loop.end - loop.start - loop.period >= max(16, loop.period)
        assert loop.count >= 2
    if len(said) * (times - 1) >= 16:
        assert any(loop.start < len(before + said * times) and loop.end > len(before) for loop in loops)


def test_distinct_is_a_share_of_all_runs_of_words() -> None:
    words = ["to", "be", "or", "not", "to", "be"]
    assert [distinct(words, n) for n in (1, 2, 3, 6, 7)] == [4 / 6, 4 / 5, 1, 1, None]
