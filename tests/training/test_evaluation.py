import numpy as np
import pytest
import torch

from model.backends.eager import EagerBackend
from model.config import GPTConfig
from model.errors import DataError
from model.generation.generator import load_generator
from tests.tiny import CPU, INT8, LEARNED, ROTARY, tiny_checkpoint
from training.evaluation import (
    estimate_as_nanogpt,
    evaluate,
    evaluate_backend,
    evaluate_rolling,
    fit_logit_scale,
)


def test_every_character_but_the_first_is_predicted_once() -> None:
    """A short last block counts: the mean equals that of a loop over single predictions."""
    network = tiny_checkpoint().network()
    ids = np.random.default_rng(0).integers(ROTARY.vocab_size, size=3 * 16 + 6).astype(np.uint16)
    result = evaluate(network, ids, torch.float32)
    losses = []
    for position in range(1, len(ids)):
        start = (position - 1) // 16 * 16
        logits = network(torch.from_numpy(ids[None, start:position].astype(np.int64)))[0, -1]
        losses.append(-logits.log_softmax(-1)[int(ids[position])].item())
    assert result.characters == len(ids) - 1
    assert result.loss == pytest.approx(np.mean(losses), abs=1e-4)


def test_a_part_of_the_blocks_says_so() -> None:
    ids = np.zeros(16 * 50, dtype=np.uint16)
    result = evaluate(tiny_checkpoint().network(), ids, torch.float32, max_blocks=5)
    assert result.characters == 5 * 16
    assert "5 evenly spaced blocks" in result.method


def test_dropout_left_on_is_not_read_as_loss() -> None:
    with pytest.raises(RuntimeError, match="eval"):
        evaluate(tiny_checkpoint().network().train(), np.zeros(50, dtype=np.uint16), torch.float32)


def test_an_empty_split_is_refused() -> None:
    with pytest.raises(DataError, match="2 or more"):
        evaluate(tiny_checkpoint().network(), np.zeros(1, dtype=np.uint16), torch.float32)


def test_the_rolling_loss_is_that_of_what_is_served() -> None:
    """Equals the losses of the server's own cache, one character at a time, past the window many times."""
    ids = np.random.default_rng(0).integers(ROTARY.vocab_size, size=70).astype(np.uint16)
    network = tiny_checkpoint().network()
    backend = EagerBackend(tiny_checkpoint().network(), CPU, slots=1)
    [logits] = backend.forward({0: [int(ids[0])]})[0]
    losses = []
    for following in map(int, ids[1:]):
        losses.append(-torch.as_tensor(logits).log_softmax(-1)[following].item())
        [logits] = backend.forward({0: [following]})[0]
    result = evaluate_rolling(network, ids, torch.float32)
    assert result.characters == 69
    assert result.loss == pytest.approx(np.mean(losses), abs=1e-4)


def test_nanogpts_estimate_is_near_the_whole_splits_loss() -> None:
    ids = np.random.default_rng(0).integers(ROTARY.vocab_size, size=4000).astype(np.uint16)
    network = tiny_checkpoint().network()
    estimate = estimate_as_nanogpt(network, ids, torch.float32, batches=8)
    assert estimate.characters == 8 * 64 * 16
    assert estimate.loss == pytest.approx(evaluate(network, ids, torch.float32).loss, rel=0.03)


@pytest.mark.parametrize("before", [0.5, 1.0, 3.0])
def test_the_fitted_scale_makes_the_loss_least(before: float) -> None:
    """Whatever scale stood there before."""
    network = tiny_checkpoint().network()
    torch.manual_seed(0)
    rows = torch.zeros((300, 1), dtype=torch.int64)
    while rows.shape[1] < 16:  # text that the network predicts a little
        rows = torch.cat((rows, torch.multinomial(network(rows)[:, -1].mul(2).softmax(-1), 1)), dim=1)
    ids = rows.flatten().numpy().astype(np.uint16)
    network.logit_scale = before
    fitted = fit_logit_scale(network, ids[: 256 * 16 + 1], torch.float32)
    losses = []
    for factor in (0.8, 0.9, 1.0, 1.1, 1.25):
        network.logit_scale = factor * fitted
        losses.append(evaluate(network, ids[: 256 * 16 + 1], torch.float32).loss)
    assert int(np.argmin(losses)) == 2


def test_logits_are_scaled_outside_of_training_only() -> None:
    network = tiny_checkpoint().network()
    ids = torch.arange(10)[None]
    plain = network(ids)
    network.logit_scale = 0.5
    assert torch.equal(network(ids), plain * 0.5)
    assert torch.equal(network.train()(ids), plain)


@pytest.mark.parametrize("config", [ROTARY, LEARNED])
def test_the_generators_own_loss_is_near(config: GPTConfig) -> None:
    ids = np.random.default_rng(0).integers(config.vocab_size, size=203).astype(np.uint16)
    network = tiny_checkpoint(config).network()
    for numerics, bound in ((CPU, 1e-4), (INT8, 0.1)):
        backend = load_generator(tiny_checkpoint(config), numerics, slots=1).backend
        expected = evaluate(network, ids, torch.float32)
        found = evaluate_backend(backend, ids, rolling=False)
        assert (found.characters, found.method) == (expected.characters, expected.method)
        assert found.loss == pytest.approx(expected.loss, abs=bound)
        if config.positions == "rotary":
            expected = evaluate_rolling(network, ids, torch.float32)
            found = evaluate_backend(backend, ids, rolling=True)
            assert (found.characters, found.method) == (expected.characters, expected.method)
            assert found.loss == pytest.approx(expected.loss, abs=bound)
