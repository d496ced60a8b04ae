"""What a step costs is measured once and kept, is corrected by what is observed, and changes no text."""

import json
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.backends.cpu import step_costs
from model.backends.cpu.backend import Int8Backend
from model.backends.cpu.step_costs import (
    NODES,
    SHARDED,
    WHOLE,
    CostCurve,
    Kind,
    Mode,
    cost_of_mode,
    fill_curve,
    further_row_cost,
    make_curve,
    step_cost,
)
from model.generation.generator import Generator
from model.generation.sequence import TextSequence
from tests.tiny import ROTARY, VOCABULARY, tiny_checkpoint, tiny_draft

observe: Any = numba.njit(error_model="numpy")(step_costs.observe)

READ = 1000  # ticks of a machine whose steps cost READ + 100 for each row, a tenth more for each slot


def measured_curve(path: Path | None, calls: list[tuple[int, int]], slots: int = 64, workers: int = 2) -> CostCurve:
    curve = make_curve(workers, workers)

    def measure_step(rows_of_slot: int, num_slots: int) -> int:
        calls.append((rows_of_slot, num_slots))
        sharded = curve.observation["forced_mode"][0] == SHARDED
        rows = rows_of_slot * num_slots
        ticks = READ + 100 * rows + 10 * num_slots
        return ticks // 2 if sharded else READ + (ticks - READ) // workers

    fill_curve(curve, measure_step, slots, 64, path)
    return curve


def test_the_curve_is_measured_once_and_kept(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    first = measured_curve(tmp_path / "costs.json", calls)
    assert calls
    calls.clear()
    second = measured_curve(tmp_path / "costs.json", calls)
    assert not calls
    assert np.array_equal(first.now, second.now)
    assert first.observation["forced_mode"] == -1


@pytest.mark.parametrize("content", ["", "[1, 2", "[[1]]", json.dumps(np.zeros((2, 2, 7)).tolist()), '{"a": null}'])
def test_a_file_that_is_not_whole_is_measured_again(tmp_path: Path, content: str) -> None:
    path = tmp_path / "costs.json"
    path.write_text(content)
    calls: list[tuple[int, int]] = []
    curve = measured_curve(path, calls)
    assert calls
    assert json.loads(path.read_text()) == curve.now.tolist()


def test_what_a_busy_machine_lets_nobody_measure_is_tried_and_measured_again(tmp_path: Path) -> None:
    curve = make_curve(2, 2)

    def measure_step(rows_of_slot: int, num_slots: int) -> int | None:
        return 100 * rows_of_slot * num_slots if curve.observation["forced_mode"][0] == WHOLE else None

    fill_curve(curve, measure_step, 8, 64, tmp_path / "costs.json")
    assert np.array_equal(curve.now[SHARDED], curve.now[WHOLE] / 2)
    assert not list(tmp_path.iterdir())


def test_where_nothing_can_be_kept_it_is_measured_each_time(tmp_path: Path) -> None:
    for path in (None, tmp_path / "missing" / "costs.json"):
        calls: list[tuple[int, int]] = []
        assert np.isfinite(measured_curve(path, calls).now).all()
        assert calls


@pytest.mark.parametrize(("slots", "workers"), [(1, 1), (1, 2), (3, 2), (128, 1)])
def test_few_slots_and_few_workers_leave_no_gap(slots: int, workers: int) -> None:
    calls: list[tuple[int, int]] = []
    curve = measured_curve(None, calls, slots, workers)
    assert np.isfinite(curve.now).all()
    assert (np.diff(curve.now, axis=2) >= 0).all()
    assert max(num_slots for _, num_slots in calls) <= slots


def test_costs_are_those_measured_and_between_them() -> None:
    curve = measured_curve(None, [])
    for rows in range(1, 100):
        assert cost_of_mode(curve.now, WHOLE, rows, 1) == pytest.approx(READ + 100 * rows + 10, abs=2)
        assert cost_of_mode(curve.now, SHARDED, rows, rows) == pytest.approx((READ + 110 * rows) / 2, abs=2)
    assert step_cost(curve, 1, 1) == pytest.approx((READ + 110) / 2, abs=1)
    assert further_row_cost(curve, 1, 1) == pytest.approx(50, abs=1)


@given(
    factor=st.floats(0.6, 1.8),
    steps=st.lists(st.tuples(st.sampled_from([SHARDED, WHOLE]), st.integers(1, 64)), min_size=300, max_size=400),
)
@settings(max_examples=20)
def test_a_machine_that_is_slower_as_a_whole_keeps_its_curve(factor: float, steps: list[tuple[int, int]]) -> None:
    curve = measured_curve(None, [])
    for mode, rows in steps:
        observe(curve, mode, rows, 1, round(factor * cost_of_mode(curve.measured, mode, rows, 1)))
    np.testing.assert_allclose(curve.now, curve.measured, rtol=0.25)
    assert curve.observation["speed"][0] == pytest.approx(factor, rel=0.25)


def test_a_number_of_rows_that_is_slower_than_believed_is_corrected_and_tried_again() -> None:
    """What is not done any more returns to what was measured."""
    curve = measured_curve(None, [])
    usual = cost_of_mode(curve.measured, WHOLE, 1, 1)
    for _ in range(600):
        observe(curve, WHOLE, 1, 1, round(usual))
        observe(curve, WHOLE, 4, 1, round(2 * cost_of_mode(curve.measured, WHOLE, 4, 1)))
    believed = cost_of_mode(curve.now, WHOLE, 4, 1) / cost_of_mode(curve.now, WHOLE, 1, 1)
    measured = cost_of_mode(curve.measured, WHOLE, 4, 1) / usual
    assert 1.5 * measured < believed < 2.2 * measured
    for _ in range(10_000):
        observe(curve, WHOLE, 1, 1, round(usual))
    believed = cost_of_mode(curve.now, WHOLE, 4, 1) / cost_of_mode(curve.now, WHOLE, 1, 1)
    assert believed == pytest.approx(measured, rel=0.1)


def test_no_curve_changes_a_text() -> None:
    """However wrong it is: in one or many sequences, with draft tokens or without, sharded or not."""
    checkpoint = tiny_checkpoint(ROTARY)
    draft = tiny_draft()
    texts: set[tuple[str, ...]] = set()
    random = np.random.default_rng(0)
    modes = set()
    backend = Int8Backend(checkpoint.config, checkpoint.weights, slots=5, threads=2, draft=draft)
    curve = backend._pool.curve
    generator = Generator(backend, draft)
    for _ in range(12):
        costs = np.exp(random.normal(0, 2, curve.now.shape))
        curve.measured[...] = costs
        curve.now[...] = costs
        sequences = [TextSequence(VOCABULARY, [0], sample=i, seed=3, max_new_tokens=60) for i in range(5)]
        for sequence in sequences:
            generator.add(sequence)
        active = list(sequences)
        text = dict.fromkeys(sequences, "")
        while active:
            for sequence, chunk in list(generator.step(active)):
                text[sequence] += chunk.text
                if chunk.finish_reason is not None:
                    active.remove(sequence)
            modes.add(int(backend._pool._assignments[0]["num_shards"]))
        texts.add(tuple(text.values()))
    assert len(texts) == 1
    assert modes == {1, 2}


def test_modes_and_kinds_are_indices() -> None:
    assert [int(mode) for mode in Mode] == [0, 1]
    assert [int(kind) for kind in Kind] == [0, 1]
    assert list(NODES) == sorted(NODES)
