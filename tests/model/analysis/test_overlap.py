"""The lengths of copied runs by the index are never less than the exact ones, and hardly ever more.

Tests on the real text take its path from SOLILOQUY_TEST_DATA and are skipped without it.
"""

import os
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from benchmarks.report import find_other_text
from model.analysis.overlap import (
    CopiedRun,
    CopyIndex,
    CopyScanner,
    Lengths,
    find_runs,
    longest_run,
    non_overlapping,
    share_inside,
)
from model.analysis.suffix_array import Source
from model.checkpoint import read_checkpoint
from model.device import Numerics
from model.generation.generator import load_generator
from model.generation.sequence import TextSequence
from model.sampling.sampler import Sampling
from tests.tiny import INT8, tiny_play
from training.copies import FILTER_SPECS, make_copy_index

BUNDLED = Path("checkpoints/shakespeare-char")
SMALL_SPECS = ((2, 1), (4, 2), (5, 1), (9, 4))
CHARACTERS = st.sampled_from("ab\n é日😀")
TEXTS = st.text(CHARACTERS, max_size=60) | st.text(max_size=30)


@st.composite
def texts_and_others(draw: st.DrawFn) -> tuple[str, str]:
    """A text, and another that is partly copied from it."""
    text = draw(TEXTS)
    parts = [draw(TEXTS)]
    for _ in range(draw(st.integers(0, 3))):
        start = draw(st.integers(0, len(text)))
        parts += [text[start : start + draw(st.integers(0, 40))], draw(TEXTS)]
    return text, "".join(parts)


@given(texts_and_others())
def test_no_run_is_missed_and_none_grows_by_more_than_its_character(both: tuple[str, str]) -> None:
    text, other = both
    reported = make_copy_index(text, SMALL_SPECS).lengths(other)
    exact = Source(text).lengths(other)
    assert reported.shape == (len(other),)
    assert (reported >= np.where(exact >= 2, exact, 0)).all()
    assert (reported <= np.arange(1, len(other) + 1)).all()
    assert (
        np.diff(reported) <= np.where(reported[:-1] > 0, 1, 2)
    ).all()  # the first that is reported of has two characters


@given(texts_and_others(), st.lists(st.integers(0, 200)))
def test_a_text_fed_in_parts_has_the_lengths_of_the_whole(both: tuple[str, str], cuts: list[int]) -> None:
    training, text = both
    index = make_copy_index(training, SMALL_SPECS)
    scanner = CopyScanner(index)
    edges = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    parts = [scanner.feed(text[start:end]) for start, end in pairwise(edges)]
    assert np.concatenate(parts).tolist() == index.lengths(text).tolist()


@given(st.text(CHARACTERS, min_size=1, max_size=80))
def test_the_whole_text_is_one_run(text: str) -> None:
    lengths = make_copy_index(text, SMALL_SPECS).lengths(text)
    assert lengths.tolist() == [0 if length < 2 else length for length in range(1, len(text) + 1)]


def test_what_was_never_there_is_taken_for_a_member_once_in_256_times() -> None:
    random = np.random.default_rng(0)
    text, other = ("".join(map(chr, random.integers(97, 107, 100_000))) for _ in range(2))
    reported = make_copy_index(text, [(12, 1)]).lengths(other)
    exact = Source(text).lengths(other)
    strange = exact < 12
    assert strange.sum() > 99_000
    rate = (reported[strange] >= 12).mean()
    assert 0.5 / 256 < rate < 1.5 / 256


def test_with_all_filters_what_is_reported_of_twenty_is_right() -> None:
    text = tiny_play(0, 1000)
    other = tiny_play(1, 1000)
    reported = make_copy_index(text).lengths(other)
    exact = Source(text).lengths(other)
    assert (reported >= np.where(exact >= 11, exact, 0)).all()
    assert ((reported >= 20) != (exact >= 20)).mean() < 0.002
    assert (reported - np.maximum(exact, 10) > 2).mean() < 0.05


@pytest.mark.parametrize("text", ["", "a", "ab", "abcdefghi" * 20])
@pytest.mark.parametrize("training", ["", "a", "abcdefghi" * 20])
def test_short_texts_have_lengths_too(text: str, training: str) -> None:
    index = make_copy_index(training)
    assert index.shortest == 11
    exact = Source(training).lengths(text)
    assert index.lengths(text).tolist() == np.where(exact < 11, 0, exact).tolist()


def test_the_same_text_has_the_same_index_and_another_text_another_salt() -> None:
    first, again, other = (make_copy_index(text) for text in ("to be " * 50, "to be " * 50, "or not" * 50))
    assert first.salt == again.salt != other.salt
    assert (first.cells == again.cells).all()


def lengths(*values: int) -> Lengths:
    return np.array(values, np.int32)


def test_runs_end_where_the_length_grows_no_more() -> None:
    reported = lengths(0, 0, 3, 4, 3, 3, 4, 0, 3)
    assert find_runs(reported, 3) == [CopiedRun(0, 4), CopiedRun(2, 5), CopiedRun(3, 7), CopiedRun(6, 9)]
    assert find_runs(reported, 4) == [CopiedRun(0, 4), CopiedRun(3, 7)]
    assert find_runs(reported, 5) == []
    assert longest_run(reported) == CopiedRun(0, 4)
    assert non_overlapping(find_runs(reported, 3)) == [CopiedRun(0, 4), CopiedRun(6, 9)]
    assert non_overlapping([]) == []
    assert longest_run(lengths(0, 0)) is None
    assert longest_run(lengths()) is None


def test_a_share_counts_each_character_once() -> None:
    assert share_inside(lengths(0, 0, 3, 4, 3, 3, 4, 0, 3, 0), 3) == 0.9
    assert share_inside(lengths(0, 0, 3, 4, 3, 3, 4, 0, 3, 0), 4) == 0.7
    assert share_inside(lengths(), 4) == 0


def test_parts_that_do_not_belong_together_are_refused() -> None:
    index = make_copy_index("to be or not to be, that is the question")
    tensors = index.tensors()
    assert (CopyIndex.from_tensors(tensors).cells == index.cells).all()
    descending = index.rungs[::-1].copy()
    odd_segments = index.rungs.copy()
    odd_segments[0, 2] *= 3
    no_stride = index.rungs.copy()
    no_stride[0, 1] = 0
    cases: list[tuple[str, NDArray[np.generic], str]] = [
        ("salt", np.zeros(2, np.uint64), "salt is not one uint64"),
        ("rungs", index.rungs.astype(np.int32), "rungs are int32"),
        ("rungs", index.rungs[:0], "not int64"),
        ("rungs", descending, "do not ascend"),
        ("rungs", odd_segments, "powers of two"),
        ("rungs", no_stride, "a stride is not from 1"),
        ("cells", index.cells[1:], "cells are uint8"),
    ]
    for name, value, message in cases:
        with pytest.raises(ValueError, match=message):
            CopyIndex.from_tensors({**tensors, name: value})


@pytest.fixture(scope="module")
def shakespeare() -> str:
    """The training split."""
    path = os.environ.get("SOLILOQUY_TEST_DATA")
    if not path:
        pytest.skip("SOLILOQUY_TEST_DATA names no file")
    text = Path(path).read_text(encoding="utf-8")
    return text[: int(len(text) * 0.9)]


@pytest.fixture(scope="module")
def bundled() -> CopyIndex:
    checkpoint = read_checkpoint(BUNDLED)
    assert checkpoint.index is not None
    return checkpoint.index.copies


def write(characters: int, numerics: Numerics) -> str:
    """A text by the bundled model."""
    checkpoint = read_checkpoint(BUNDLED)
    prompt = checkpoint.vocabulary.encode("\n")
    sequence = TextSequence(checkpoint.vocabulary, prompt, Sampling(), 1, 0, characters)
    return "".join(chunk.text for chunk in load_generator(checkpoint, numerics, 1).write(sequence))


def test_copied_passages_are_found_by_the_index_alone(shakespeare: str, bundled: CopyIndex) -> None:
    random = np.random.default_rng(2)
    own = write(2200, INT8)
    text = own[:200]
    copied: list[CopiedRun] = []
    for i, size in enumerate(random.integers(20, 401, 10), start=1):
        start = int(random.integers(0, len(shakespeare) - size))
        copied.append(CopiedRun(len(text), len(text) + int(size)))
        text += shakespeare[start : start + size] + own[200 * i : 200 * i + 200]
    runs = find_runs(bundled.lengths(text), 18)
    found: set[CopiedRun] = set()
    for passage in copied:
        [run] = [run for run in runs if abs(run.start - passage.start) <= 2 and abs(run.end - passage.end) <= 2]
        found.add(run)
    assert {run for run in runs if run.length >= 30} <= found


def test_a_million_characters_of_other_english_have_no_false_run_of_twenty(
    shakespeare: str, bundled: CopyIndex
) -> None:
    """`python -m benchmarks.report` prints the rates: 0.4 % of a filter, and none of 20 characters."""
    other, _ = find_other_text(None)
    reported = bundled.lengths(other)
    exact = Source(shakespeare).lengths(other)
    assert (reported >= np.where(exact >= 11, exact, 0)).all()
    assert ((reported >= 11) & (exact < 11)).mean() < 1.2 / 256
    assert ((reported >= 20) & (exact < 20)).mean() < 1e-4


def test_the_bundled_index_has_all_of_its_text(shakespeare: str, bundled: CopyIndex) -> None:
    expected = np.arange(1, len(shakespeare) + 1)
    assert (bundled.lengths(shakespeare) == np.where(expected < 11, 0, expected)).all()
    assert bundled.cells.nbytes < 5_000_000
    assert [length + stride - 1 for length, stride in bundled.rungs[:, :2]] == [least for least, _ in FILTER_SPECS]
