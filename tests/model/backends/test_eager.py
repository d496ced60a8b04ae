"""The cache changes the cost of a character, never its logits; neither do the rows beside it."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from model.backends.eager import EagerBackend
from model.config import GPTConfig
from model.device import Numerics
from model.network import GPT
from model.sampling.sampler import Logits
from tests.tiny import CPU, DEVICES, LEARNED, ROTARY, tiny_checkpoint

BUNDLED_SHAPE = GPTConfig(65, 2, positions="rotary", norm="rmsnorm", activation="relu2", qk_norm=True)


def text(length: int, vocab_size: int = 50, seed: int = 0) -> list[int]:
    return [int(i) for i in np.random.default_rng(seed).integers(vocab_size, size=length)]


def uncached(network: GPT, ids: list[int]) -> Logits:
    """Logits (T, V) by the network alone; past the block, each position sees a window of `block_size`."""
    positions = torch.arange(len(ids))
    distance = positions[:, None] - positions
    band = (distance >= 0) & (distance < network.config.block_size)
    logits: Logits = network(torch.tensor([ids]), mask=band[None, None])[0].numpy()
    return logits


@pytest.mark.parametrize("numerics", DEVICES, ids=lambda numerics: numerics.name)
@pytest.mark.parametrize("config", [LEARNED, ROTARY])
@pytest.mark.parametrize("prompt", [1, 7, 15])
def test_cached_equals_uncached(config: GPTConfig, prompt: int, numerics: Numerics) -> None:
    network = tiny_checkpoint(config).network()
    ids = text(16)
    expected = uncached(network, ids)
    backend = EagerBackend(network, numerics, slots=3)
    np.testing.assert_allclose(backend.forward({1: ids[:prompt]})[1], expected[:prompt], atol=1e-4)
    for position in range(prompt, 16):
        np.testing.assert_allclose(backend.forward({1: [ids[position]]})[1][0], expected[position], atol=1e-4)


@pytest.mark.parametrize("numerics", DEVICES, ids=lambda numerics: numerics.name)
@pytest.mark.parametrize("prompt", [5, 16])
def test_a_rotary_ring_equals_a_sliding_window(prompt: int, numerics: Numerics) -> None:
    network = tiny_checkpoint(ROTARY).network()
    ids = text(100)
    expected = uncached(network, ids)
    backend = EagerBackend(network, numerics, slots=1)
    backend.forward({0: ids[:prompt]})
    for position in range(prompt, 100):
        [logits] = backend.forward({0: [ids[position]]})[0]
        np.testing.assert_allclose(logits, expected[position], atol=1e-3, err_msg=f"position {position}")


@pytest.mark.parametrize("numerics", DEVICES, ids=lambda numerics: numerics.name)
@pytest.mark.parametrize("config", [BUNDLED_SHAPE, LEARNED, ROTARY])
def test_a_row_is_bitwise_the_same_alone_and_in_company(config: GPTConfig, numerics: Numerics) -> None:
    """A product's rounding depends on its shape: MKL gives other bits for 1, 8 and 16 rows."""
    network = tiny_checkpoint(config).network() if config is not BUNDLED_SHAPE else GPT(config).eval()
    texts = [text(12, config.vocab_size, seed) for seed in range(16)]
    together = EagerBackend(network, numerics, slots=16)
    for slot, ids in enumerate(texts):
        together.forward({slot: ids[:4]})
    rows = [together.forward({slot: [ids[4 + step]] for slot, ids in enumerate(texts)}) for step in range(8)]
    for slot in (0, 5, 15):
        alone = EagerBackend(network, numerics, slots=1)
        alone.forward({0: texts[slot][:4]})
        for step in range(8):
            assert np.array_equal(alone.forward({0: [texts[slot][4 + step]]})[0], rows[step][slot])


def by_index(x: Tensor, index: int) -> bool:
    """The second half of a product's rows is summed in another order, as OpenBLAS does with AVX2."""
    return index >= x.shape[0] // 2 > 0


def by_size(x: Tensor, _: int) -> bool:
    """Fewer than eight rows are summed in another order, as MKL does without vectors."""
    return x.shape[0] < 8


@pytest.mark.parametrize("otherwise", [by_index, by_size])
@pytest.mark.parametrize("config", [LEARNED, ROTARY])
def test_bits_do_not_depend_on_how_a_library_rounds(
    config: GPTConfig, otherwise: Callable[[Tensor, int], bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A text's logits depended on its slot where a library sums a product's rows in orders of their own.

    Cause: it was taken for granted that a row's index in a group of eight changes nothing, which holds for MKL.
    Fix: the backend looks whether it does, and computes each row by itself where it does not.
    """

    def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        flat = x.flatten(0, -2)
        rows = [
            row.flip(-1) @ weight.flip(-1).T if otherwise(flat, index) else row @ weight.T
            for index, row in enumerate(flat)
        ]
        product = torch.stack(rows).view(*x.shape[:-1], -1)
        return product if bias is None else product + bias

    monkeypatch.setattr(functional, "linear", linear)
    network = tiny_checkpoint(config).network()
    texts = [text(6, config.vocab_size, seed) for seed in range(11)]
    together = EagerBackend(network, CPU, slots=11)
    for slot, ids in enumerate(texts):
        together.forward({slot: ids[:3]})
    steps = [together.forward({slot: [ids[step]] for slot, ids in enumerate(texts)}) for step in range(3, 6)]
    for slot, ids in enumerate(texts):
        alone = EagerBackend(network, CPU, slots=1)
        alone.forward({0: ids[:3]})
        for step, logits in enumerate(steps):
            assert np.array_equal(alone.forward({0: [ids[3 + step]]})[0], logits[slot])


def test_bits_do_not_depend_on_the_number_of_threads() -> None:
    network = GPT(BUNDLED_SHAPE).eval()
    ids = text(40)
    results = []
    before = torch.get_num_threads()
    for threads in (1, 2):
        torch.set_num_threads(threads)
        backend = EagerBackend(network, CPU, slots=1)
        results.append(np.concatenate([backend.forward({0: ids})[0][-1], backend.forward({0: [3]})[0][0]]))
        assert torch.get_num_threads() == threads
    torch.set_num_threads(before)
    assert np.array_equal(results[0], results[1])


@pytest.mark.parametrize("numerics", DEVICES, ids=lambda numerics: numerics.name)
@pytest.mark.parametrize("config", [LEARNED, ROTARY])
def test_a_slot_that_sits_out_steps_is_not_disturbed(config: GPTConfig, numerics: Numerics) -> None:
    network = tiny_checkpoint(config).network()
    ids = text(16)
    expected = uncached(network, ids[:8])
    backend = EagerBackend(network, numerics, slots=2)
    backend.forward({0: ids[:6]})
    backend.forward({1: ids[:3]})
    for step in range(8):
        backend.forward({1: [ids[step]]})  # slot 0 shares the group and waits
    backend.forward({0: [ids[6]]})
    np.testing.assert_allclose(backend.forward({0: [ids[7]]})[0][0], expected[7], atol=1e-4)


@pytest.mark.parametrize("device", DEVICES, ids=lambda numerics: numerics.device)
def test_half_precision_is_near(device: Numerics) -> None:
    torch.manual_seed(0)
    network = GPT(BUNDLED_SHAPE).eval().requires_grad_(False)
    ids = text(40)
    [expected] = uncached(network, ids)[-1:]
    half = Numerics(device.device, "bfloat16")
    backend = EagerBackend(network, half, slots=2)
    backend.forward({0: ids[:30]})
    for position in range(30, 40):
        [logits] = backend.forward({0: [ids[position]]})[0]
    np.testing.assert_allclose(logits, expected, atol=0.02)
    assert np.abs(expected).max() > 0.2
