"""A report of a text, whole and while the text is generated."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.analysis.measure import FIGURES
from model.analysis.report import LiveMarks, Report
from model.analysis.suffix_array import Source
from model.analysis.summary import ENGLISH, verdict
from model.analysis.text_index import HeldOut, Range
from model.analysis.words import Mark
from model.checkpoint import Checkpoint
from model.errors import InputError
from tests.tiny import VOCABULARY, report_of, tiny_checkpoint, tiny_index, tiny_play
from training.dataset import Dataset
from training.draft import make_draft
from training.index import make_index

TRAIN = tiny_play(0, 800)
OTHER = tiny_play(1)[:1000]


@cache
def compared_checkpoint() -> Checkpoint:
    """A checkpoint with an index of `TRAIN`, compared with another play, and with a draft."""
    train_ids, held_out_ids = (np.array(VOCABULARY.encode(text), np.uint16) for text in (TRAIN, tiny_play(3, 200)))
    draft = make_draft(train_ids, len(VOCABULARY))
    index = make_index(Dataset(VOCABULARY, train_ids, held_out_ids, {}), draft)
    return replace(tiny_checkpoint(), index=index, draft=draft)


@cache
def bare_checkpoint() -> Checkpoint:
    """A checkpoint whose index has nothing to compare with, and without a draft."""
    return replace(tiny_checkpoint(), index=replace(tiny_index("no play at all, " * 20), held_out=()))


def test_a_report_is_json_with_every_figure_beside_that_of_held_out_text() -> None:
    content = json.loads(json.dumps(report_of(OTHER, compared_checkpoint(), 2.5).content()))
    assert content["characters"] == 1000
    assert content["held_out"]["characters"] == 1000
    assert list(content["figures"]) == list(FIGURES)
    for figure in content["figures"].values():
        low = figure["held_out"]["low"]
        high = figure["held_out"]["high"]
        expected = "within"
        if low and figure["value"] < low:
            expected = "below"
        elif high and figure["value"] > high:
            expected = "above"
        assert figure["verdict"] in (expected, None)
    assert content["figures"]["model_bits"] == {
        "value": 2.5,
        "held_out": {"mean": pytest.approx(4.0 / math.log(2), rel=1e-5), "low": None, "high": None},
        "verdict": None,
    }
    assert content["words"]["count"] > 100
    assert len(content["copies"]["lengths"]) == 1000
    assert set(content["sentences"]) == {"copies", "words", "structure", "quality"}


def test_what_is_copied_is_marked_and_found_in_the_source() -> None:
    text = "xyzzy " + TRAIN[500:600] + " xyzzy"
    report = report_of(text, compared_checkpoint(), source=Source(TRAIN))
    [run] = [one for one in report.content()["copies"]["runs"] if one["end"] - one["start"] >= 50]
    assert abs(run["start"] - 6) <= 2
    assert abs(run["end"] - 106) <= 2
    assert TRAIN[run["place"] :].startswith(text[run["start"] : run["end"]])
    assert report.sentences["copies"].key == "copies.mostly"
    assert report.measured.figures["copied_50"] == pytest.approx(100 / 112, abs=0.04)
    assert [run["place"] for run in report_of(text, compared_checkpoint()).content()["copies"]["runs"]] == [None]


def test_the_source_makes_lengths_exact() -> None:
    lengths = report_of(OTHER, compared_checkpoint(), source=Source(TRAIN)).measured.lengths
    exact = Source(TRAIN).lengths(OTHER)
    assert lengths.tolist() == np.where(exact < 11, 0, exact).tolist()


def test_the_longest_run_is_listed_though_it_is_short() -> None:
    content = report_of("xyzzy what light throxyzzy", compared_checkpoint()).content()
    [run] = content["copies"]["runs"]
    assert 11 <= run["end"] - run["start"] < 20


def test_words_speakers_and_loops_are_listed() -> None:
    text = "\nRomeo:\nsoft lighrough,\n\nGhost:\n" + "fair sun arise, " * 4
    content = report_of(text, compared_checkpoint()).content()
    assert content["words"]["invented"] == [
        {
            "start": 8, "end": 12, "word": "soft", "real": False,
            "begins_like": None, "ends_like": None,
        },
        {
            "start": 13, "end": 22, "word": "lighrough", "real": False,
            "begins_like": {"word": "light", "shared": 4}, "ends_like": {"word": "through", "shared": 6},
        },
        {
            "start": 25, "end": 30, "word": "Ghost", "real": False,
            "begins_like": None, "ends_like": {"word": "east", "shared": 2},
        },
    ]  # fmt: skip
    assert content["structure"]["speakers"] == [
        {"name": "Romeo", "known": True, "speeches": 1, "characters": 15},
        {"name": "Ghost", "known": False, "speeches": 1, "characters": 63},
    ]
    [loop] = content["loops"]
    assert loop["period"] == 16
    assert loop["count"] == pytest.approx(4, abs=0.1)


SENTENCES = [
    ("", compared_checkpoint, "copies.none", "words.none", "structure.none", "quality.none"),
    ("\n \n", compared_checkpoint, "copies.none", "words.none", "structure.none", "quality.wild"),
    ("Q", bare_checkpoint, "copies.none", "words.none", "structure.lines", "quality.none"),
    ("no play at no", bare_checkpoint, "copies.alone", "words.real", "structure.lines", "quality.varied"),
    ("Qu, qu zz.", bare_checkpoint, "copies.none", "words.alone", "structure.lines", "quality.varied"),
    (
        "Aa b,\nBb,\nCc,\nDd,\nEe",
        bare_checkpoint,
        "copies.none",
        "words.alone",
        "structure.verse",
        "quality.varied",
    ),
    ("again " * 30, compared_checkpoint, "copies.none", "words.more", "structure.lines", "quality.loops"),
    (tiny_play(2)[:1000], compared_checkpoint, "copies.usual", "words.real", "structure.play", "quality.usual"),
    (TRAIN[:1000], compared_checkpoint, "copies.mostly", "words.real", "structure.play", "quality.dull"),
    (
        "\n\n".join(OTHER.split("\n\n")[:6] + TRAIN.split("\n\n")[:3]),
        compared_checkpoint,
        "copies.more",
        "words.real",
        "structure.play",
        "quality.usual",
    ),
]


@pytest.mark.parametrize(("text", "make_checkpoint", "copies", "words", "structure", "quality"), SENTENCES)
def test_each_part_has_its_sentence(
    text: str, make_checkpoint: Callable[[], Checkpoint], copies: str, words: str, structure: str, quality: str
) -> None:
    sentences = report_of(text, make_checkpoint()).sentences
    keys = {part: sentence.key for part, sentence in sentences.items()}
    assert keys == {"copies": copies, "words": words, "structure": structure, "quality": quality}
    assert all("{" not in sentence.english for sentence in sentences.values())


@pytest.mark.parametrize(("mean", "kind"), [(0.1, "more"), (0.5, "usual"), (0.9, "fewer")])
def test_new_words_are_judged_by_those_of_held_out_text(mean: float, kind: str) -> None:
    held_out = HeldOut(10, 100, {"invented_words": Range(mean, mean - 0.1, mean + 0.1)})
    index = bare_checkpoint().index
    assert index is not None
    checkpoint = replace(bare_checkpoint(), index=replace(index, held_out=(held_out,)))
    sentence = report_of("no zz at xx.", checkpoint).sentences["words"]
    assert sentence.key == f"words.{kind}"
    assert sentence.english.startswith("50.0%")


def test_every_sentence_is_tested() -> None:
    tested = {"words.more", "words.usual", "words.fewer"}
    for _, _, *keys in SENTENCES:
        tested.update(keys)
    assert tested == set(ENGLISH)


def test_a_figure_is_judged_by_the_middle_of_real_text() -> None:
    bounds = Range(2, 1, 3)
    assert [verdict(value, bounds) for value in (0.9, 1, 3, 3.1)] == ["below", "within", "within", "above"]
    assert verdict(2, Range(2)) is None


def piece_figures(longest: float, distinct: float) -> dict[str, Range]:
    return {
        "longest_copy": Range(longest, longest - 5, longest + 5),
        "distinct_1": Range(distinct, distinct - 0.1, distinct + 0.1),
    }


HELD_OUT = (HeldOut(100, 9, piece_figures(15, 0.9)), HeldOut(1000, 5, piece_figures(20, 0.6)))


@pytest.mark.parametrize(
    ("characters", "size", "high", "distinct"),
    [
        (0, 100, 1, 0.9),  # no longer than the text, which 10 was
        (10, 100, 10, 0.9),
        (99, 100, 20, 0.9),
        (100, 100, 20, 0.9),
        (101, 101, 20, 0.9),
        (316, 316, 22, 0.75),
        (999, 999, 25, 0.6),
        (1000, 1000, 25, 0.6),
        (1001, 1000, 25, None),
        (100_000, 1000, 35, None),
    ],
)
def test_a_text_is_compared_with_pieces_of_its_own_size(
    characters: int, size: int, high: float, distinct: float | None
) -> None:
    """A text of 500 characters was compared with pieces of 250, and 12 in 32 had "more than by chance" of the
    training text; one more character, and it was 2 in 32. What lies between two sizes is now between their figures.
    """
    found = replace(compared_checkpoint().require_index(), held_out=HELD_OUT).held_out_of(characters)
    assert found is not None
    assert found.characters == size
    assert found.figures["longest_copy"].high == high
    longest = found.figures["longest_copy"]
    assert 0 <= longest.low <= longest.mean <= longest.high <= max(1, characters)
    words = found.figures.get("distinct_1")
    assert (words and words.mean) == (distinct and pytest.approx(distinct, abs=0.01))


@pytest.mark.parametrize("size", [20, 99, 100, 101, 180, 249, 250, 251, 320, 500, 501, 700, 999, 1001, 1800, 2499])
def test_real_text_of_any_size_has_no_more_copies_than_real_text_has(size: int) -> None:
    """Of plays that the index has not seen, about one piece in twenty may have more than 95 % of pieces have."""
    play = tiny_play(7, 600)
    held_out = compared_checkpoint().require_index().held_out_of(size)
    assert held_out is not None
    bound = held_out.figures["longest_copy"].high
    lengths = compared_checkpoint().require_index().copies.lengths(play)
    starts = np.linspace(0, len(play) - size, 300).astype(int)
    longest = [np.minimum(lengths[start : start + size], np.arange(1, size + 1)).max() for start in starts]
    assert np.mean(np.array(longest) > bound) < 0.15


def test_without_an_index_there_is_no_report() -> None:
    with pytest.raises(InputError, match="report: this checkpoint has no index"):
        report_of("text", tiny_checkpoint())


TEXTS = st.text(st.sampled_from("what lightROMEO:\n.,'!")) | st.text()


@given(TEXTS, st.lists(st.integers(0, 60)))
def test_live_marks_are_those_of_the_whole(text: str, cuts: list[int]) -> None:
    live = LiveMarks(compared_checkpoint().require_index())
    report = report_of(text, compared_checkpoint())
    edges = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    updates = [live.append(text[start:end]) for start, end in pairwise(edges)] + [live.finish()]
    assert [update.first for update in updates] == [*edges[:-1], len(text)]
    assert np.concatenate([update.lengths for update in updates]).tolist() == report.measured.lengths.tolist()
    marks: list[Mark] = []
    for update in updates:
        marks += update.words
    assert tuple(marks) == report.measured.words
    json.dumps([update.content() for update in updates])


@given(TEXTS)
def test_any_text_has_a_report(text: str) -> None:
    report: Report = report_of(text, compared_checkpoint(), 1.0, source=Source(TRAIN))
    content = json.loads(json.dumps(report.content(), allow_nan=False))
    assert content["characters"] == len(content["copies"]["lengths"]) == len(text)
    assert set(content["sentences"]) == {"copies", "words", "structure", "quality"}
