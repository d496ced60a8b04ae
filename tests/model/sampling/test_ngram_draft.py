from pathlib import Path

import numpy as np
import pytest

from model.errors import CheckpointError
from model.sampling.ngram_draft import UNITS_PER_NAT, Draft, context_keys
from model.sampling.noise import gumbel_noise
from tests.tiny import VOCABULARY
from training.draft import make_draft
from training.ngram import KneserNey

TEXT = "What light through yonder window breaks? It is the east, and Juliet is the sun. " * 20
IDS = np.array(VOCABULARY.encode(TEXT), dtype=np.uint16)
SIZE = len(VOCABULARY)


@pytest.fixture(scope="module")
def draft() -> Draft:
    return make_draft(IDS, SIZE)


@pytest.mark.parametrize("temperature", [0.0, 0.8, 1.5])
def test_a_draft_token_is_the_five_grams_own_draw(draft: Draft, temperature: float) -> None:
    """The table gives what the n-gram itself would draw with the same noise, after all contexts of the text."""
    model = KneserNey(IDS, 5, SIZE)
    positions = range(4, 400)
    exact = -np.log(model.distribution(np.array([IDS[i - 4 : i] for i in positions], dtype=np.int64)))
    alike = 0
    for position, surprisal in zip(positions, exact, strict=True):
        noise = gumbel_noise(1, 0, position, 1, SIZE) if temperature else np.zeros((1, SIZE))
        ids, [probability] = draft.propose(IDS[position - 4 : position].tolist(), noise, temperature)
        scores = noise[0] - surprisal / (temperature or 1.0)
        alike += ids == [int(scores.argmax())]
        assert 0.5 <= probability < 1
    assert alike > 0.97 * len(positions)


def test_draft_tokens_follow_each_other(draft: Draft) -> None:
    ids, _ = draft.propose(VOCABULARY.encode("What")[-draft.max_context :], np.zeros((30, SIZE)), 0.0)
    assert VOCABULARY.decode(ids) == TEXT[4:34]


def test_an_unknown_context_falls_back_to_a_shorter_one(draft: Draft) -> None:
    shorter = draft.propose(VOCABULARY.encode("t"), np.zeros((1, SIZE)), 0.0)
    assert draft.propose(VOCABULARY.encode("ZZZt"), np.zeros((1, SIZE)), 0.0) == shorter
    assert draft.propose([], np.zeros((1, SIZE)), 0.0)[0] == [int(draft.surprisal[0].argmin())]


def test_bits_are_those_of_the_longest_context_in_the_table(draft: Draft) -> None:
    ids = VOCABULARY.encode("What light yonder? ZZ")
    expected = []
    for position, following in enumerate(ids):
        for length in range(min(position, draft.max_context), -1, -1):
            key = context_keys(np.array([ids[position - length : position]], np.int64).reshape(1, -1), SIZE)[0]
            if key in draft.keys:
                row = int(np.searchsorted(draft.keys, key))
                expected.append(draft.surprisal[row, following] / UNITS_PER_NAT / np.log(2))
                break
    assert draft.bits(ids) == pytest.approx(expected)
    assert draft.bits(ids[:1]) == pytest.approx(expected[:1])
    assert draft.bits([]).shape == (0,)


def test_a_table_is_bounded_and_keeps_what_is_common() -> None:
    random = np.random.default_rng(0).integers(0, 3000, size=200_000).astype(np.uint16)
    draft = make_draft(random, 3000)
    assert draft.keys.nbytes + draft.surprisal.nbytes <= 2 << 20
    assert draft.keys[0] == 0
    assert draft.surprisal[0].max() < 12 * UNITS_PER_NAT


def test_short_texts_have_a_table_too() -> None:
    for length in (2, 5, 30):
        draft = make_draft(IDS[:length], SIZE)
        assert len(draft.propose([], np.zeros((3, SIZE)), 0.0)[0]) == 3


def test_what_is_not_a_table_is_refused(draft: Draft, tmp_path: Path) -> None:
    path = tmp_path / "draft.safetensors"
    draft.save(path)
    loaded = Draft.load(path, SIZE)
    assert np.array_equal(loaded.surprisal, draft.surprisal)
    assert loaded.max_context == 4
    with pytest.raises(CheckpointError, match=f"for {SIZE + 1} characters"):
        Draft.load(path, SIZE + 1)
    Draft(np.array([*draft.keys[:-1], 2**63 - 1]), draft.surprisal).save(path)  # what a GPU reckons with, overflows
    with pytest.raises(CheckpointError, match="which are too many"):
        Draft.load(path, SIZE)
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(CheckpointError, match="truncated"):
        Draft.load(path, SIZE)


def test_keys_tell_contexts_apart() -> None:
    contexts = [[], [0], [1], [0, 0], [0, 1], [1, 0], [0, 0, 0]]
    keys = [int(context_keys(np.array([c], dtype=np.int64).reshape(1, -1), 2)[0]) for c in contexts]
    assert keys == sorted(set(keys))
