import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.analysis.structure import Speaker, analyse, balance, find_speakers
from tests.tiny import SPEAKERS, tiny_play

SCENE = """
ROMEO:
But, soft! what light through yonder window
Breaks? It is the east, and Juliet
Is the sun. Arise, fair sun, and kill the envious
Moon, who is already sick.

Third Ghost:
O me!

ROMEO:

Nota bene:
"""


def test_a_play_has_speakers_known_and_invented() -> None:
    found = analyse(SCENE, ("ROMEO", "JULIET"))
    assert [(one.name, one.known, one.speeches) for one in found.speakers] == [
        ("ROMEO", True, 2),
        ("Third Ghost", False, 1),
        ("Nota bene", False, 1),
    ]
    assert found.speakers[1] == Speaker("Third Ghost", False, 1, len("O me!"))
    assert found.speeches == 4
    assert found.lines == 5
    assert found.form == "verse"


def test_a_text_of_another_kind_has_none() -> None:
    found = analyse(SCENE, ())
    assert found.speakers == ()
    assert found.speeches == 0
    assert found.lines == 9


def test_the_speakers_of_a_training_text_are_those_of_a_play() -> None:
    assert set(find_speakers(tiny_play())) == set(SPEAKERS)
    prose = "It was the best of times.\nIt was the worst of times.\n" * 30
    assert find_speakers(prose) == find_speakers(prose + "\n\nNote:\nit was.\n") == find_speakers("") == ()
    assert find_speakers("He said\nwhat follows:\nnothing, and:\n\nmore of it:\n") == ()


@pytest.mark.parametrize(
    ("text", "form"),
    [
        (
            "we are accounted poor citizens, the\npatricians good. what authority\nsurfeits on would\nrelieve us",
            "prose",
        ),
        ("One line,\nAnother,\nand a third,\nA fourth,\nthe end", "mixed"),
        ("One line.\nAnother.\nA third.", None),
        ("日本,\n日本,\n日本,\n日本,\n日本", None),
        ("", None),
    ],
)
def test_verse_begins_its_lines_with_capitals(text: str, form: str | None) -> None:
    assert analyse(text, ()).form == form


@pytest.mark.parametrize(
    ("text", "unmatched", "pairs"),
    [
        ("(a [b] {c})", [], 3),
        ("(a ]b", [0, 3], 0),
        ("a) (b", [1, 3], 0),
        ("([)]", [1, 3], 1),
        ("“a” „b“ «c» »d«", [], 4),
        ('"a" "b', [4], 1),
        ('"a\n\n"b"', [0], 1),
        ("don't 'tis", [], 0),
        ("", [], 0),
    ],
)
def test_brackets_and_quotes_have_partners(text: str, unmatched: list[int], pairs: int) -> None:
    assert balance(text) == (unmatched, pairs)


@given(st.text(st.sampled_from('()[]“”„«»"a\n:A')))
def test_every_sign_is_counted_once(text: str) -> None:
    unmatched, matched = balance(text)
    assert len(unmatched) + 2 * matched == sum(sign in '()[]“”„«»"' for sign in text)
    assert unmatched == sorted(set(unmatched))
    analyse(text, ("A",))
