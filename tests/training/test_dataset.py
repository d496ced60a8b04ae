from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.errors import DataError
from training.dataset import Dataset, EpochBatches, RandomBatches, from_text, split_calibration

TEXT = "To be, or not to be: that is the question.\n" * 20


def test_split_and_vocabulary_are_nanogpts() -> None:
    dataset = from_text(TEXT, {})
    assert dataset.vocabulary.characters == tuple(sorted(set(TEXT)))
    assert len(dataset.train) == int(len(TEXT) * 0.9)
    ids = [*dataset.train.tolist(), *dataset.val.tolist()]
    assert dataset.vocabulary.decode(ids) == TEXT


def test_a_saved_data_set_is_the_same(tmp_path: Path) -> None:
    dataset = from_text(TEXT, {"name": "hamlet"})
    dataset.save(tmp_path / "x")
    loaded = Dataset.load(tmp_path / "x")
    assert np.array_equal(loaded.train, dataset.train)
    assert np.array_equal(loaded.val, dataset.val)
    assert loaded.source == {"name": "hamlet"}
    assert loaded.vocabulary.characters == dataset.vocabulary.characters


@pytest.mark.parametrize("text", ["", "a", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "ab"])
def test_a_text_too_small_to_learn_from_is_refused(text: str) -> None:
    with pytest.raises(DataError, match="characters"):
        from_text(text, {})


def test_a_missing_folder_is_refused_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"run training\.prepare first"):
        Dataset.load(tmp_path / "nowhere")


def test_a_block_longer_than_the_split_is_refused_with_both_sizes() -> None:
    dataset = from_text(TEXT, {})
    split_calibration(dataset.train, 0, 700)
    with pytest.raises(DataError, match="774 characters; a block_size of 800 needs 801"):
        split_calibration(dataset.train, 0, 800)


def test_the_beginning_is_held_out() -> None:
    """The end was, and with it the first part of the play that the validation split goes on with: 0.1 nats."""
    ids = from_text(TEXT, {}).train
    split = split_calibration(ids, 0.25, 8)
    assert len(split.calibration) == round(len(ids) / 4)
    assert np.array_equal(np.concatenate((split.calibration, split.train)), ids)


@given(length=st.integers(10, 400), block=st.integers(2, 9), rows=st.integers(1, 8), step=st.integers(0, 50))
def test_batches_hold_each_characters_successor(length: int, block: int, rows: int, step: int) -> None:
    ids = np.arange(length, dtype=np.uint16)
    for batches in (EpochBatches(ids, rows, block, 0), RandomBatches(ids, rows, block, 0)):
        inputs, targets = batches(step)
        assert inputs.shape[1] == block
        assert 1 <= inputs.shape[0] <= rows
        assert (targets == inputs + 1).all()
        assert (batches(step)[0] == inputs).all()  # pure: a resumed run sees the same


def test_an_epoch_reads_every_block_once_and_the_next_in_another_order() -> None:
    ids = np.arange(1000, dtype=np.uint16)
    batches = EpochBatches(ids, 4, 10, seed=1)
    steps = ((len(ids) - 1) // 10 - 1) // 4
    epochs = []
    for epoch in range(2):
        starts: list[int] = []
        for step in range(steps):
            inputs, _ = batches(epoch * steps + step)
            starts += inputs[:, 0].tolist()
        assert len(set(starts)) == len(starts) == steps * 4
        assert len({start % 10 for start in starts}) == 1
        epochs.append(starts)
    assert epochs[0] != epochs[1]
