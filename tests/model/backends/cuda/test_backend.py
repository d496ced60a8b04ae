"""A GPU's kernels compute the network and draw what `sampler.draw` draws; without a GPU, Triton interprets them."""

import copy
import importlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("triton")

from model.backends.base import DecodeInput
from model.backends.cuda import kernels
from model.backends.cuda.backend import CudaBackend, Width
from model.backends.eager import EagerBackend
from model.config import GPTConfig
from model.device import Numerics
from model.errors import DeviceError
from model.generation.generator import Generator, load_generator
from model.generation.sequence import Chunk, TextSequence
from model.network import GPT
from model.sampling.noise import GumbelNoise
from model.sampling.sampler import Sampling
from tests.tiny import CPU, LEARNED, ROTARY, VOCABULARY, tiny_checkpoint, tiny_draft

GPU = torch.cuda.is_available()
DEVICE = "cuda" if GPU else "cpu"
FLOAT32 = Numerics(DEVICE, "float32")
BFLOAT16 = Numerics(DEVICE, "bfloat16")
TOLERANCE = 1e-3  # logits reach 20 here; they move by a tenth and more where a norm, a mask or a position is wrong
BUNDLED_SHAPE = GPTConfig(65, positions="rotary", norm="rmsnorm", activation="relu2", qk_norm=True)
CONFIGS = [
    ROTARY,
    LEARNED,
    replace(LEARNED, bias=True),
    replace(ROTARY, n_embd=24, block_size=12, logit_scale=0.9),  # heads of 12, in blocks of 16
    replace(LEARNED, n_embd=26, n_layer=1),
    *([BUNDLED_SHAPE, GPTConfig(65)] if GPU else []),
]


@pytest.fixture(scope="module", autouse=True)
def interpreter_settings() -> Iterator[None]:
    """Interpreted products are summed in one order, as a GPU sums them, and Triton's language is patched only once.

    Triton's interpreter multiplies by NumPy's BLAS, whose rounding depends on the CPU, and on some of them on the
    index of a row among others: with AVX2, rows 6 to 15 of 16 come out otherwise than rows 0 to 5. Everything else
    is computed element by element, or summed along an axis of a constant length.

    At each call of a kernel or of a function in it, the interpreter looks through the whole language for what it
    has to replace, and at each operation it makes its table of types anew. These were half of these tests' time.
    """
    if GPU:
        yield
        return
    interpreter = importlib.import_module("triton.runtime.interpreter")
    with pytest.MonkeyPatch.context() as patches:
        patches.setattr(interpreter.InterpreterBuilder, "create_dot", _dot)
        language = SimpleNamespace(__globals__={"tl": interpreter.tl, "core": interpreter.tl.core})
        scope = interpreter._patch_lang(language)
        patches.setattr(interpreter, "_patch_lang", lambda _: interpreter._LangPatchScope())
        patches.setattr(interpreter, "_get_np_dtype", _cached(interpreter._get_np_dtype))
        yield
    scope.restore()


def _cached(dtype_of: Callable[[Any], np.dtype[Any]]) -> Callable[[Any], np.dtype[Any]]:
    """`dtype_of`, which depends on the type of a tensor's elements alone, asked once for each."""
    known: dict[str, np.dtype[Any]] = {}

    def cached(tensor_type: Any) -> np.dtype[Any]:
        element = tensor_type.scalar.name
        if element not in known:
            known[element] = dtype_of(tensor_type)
        return known[element]

    return cached


def _dot(_: object, a: Any, b: Any, total: Any, *__: object) -> Any:
    """`total` + `a` @ `b`, product by product, in float32."""
    products = a.data[:, :, None] * b.data[None]  # (M, K, N)
    return type(total)(products.sum(axis=1) + total.data, total.dtype.scalar)


def text(length: int, seed: int = 0) -> list[int]:
    return [int(i) for i in np.random.default_rng(seed).integers(len(VOCABULARY), size=length)]


def network_of(config: GPTConfig) -> GPT:
    network = tiny_checkpoint(config).network() if config.n_embd < 384 else GPT(config).eval().requires_grad_(False)
    torch.manual_seed(1)
    for parameter in network.parameters():
        if parameter.ndim == 1:  # of LayerNorm; ones and zeros would hide which is which
            parameter.add_(0.3 * torch.randn(parameter.shape))
    return network


@pytest.mark.parametrize("config", CONFIGS)
def test_logits_are_the_networks(config: GPTConfig) -> None:
    """Read in one chunk, in others, and one by one; past the window too, if it rolls."""
    network = network_of(config)
    ids = text(16 if config.positions == "learned" else 28)
    positions = torch.arange(len(ids))
    distance = positions[:, None] - positions
    band = (distance >= 0) & (distance < config.block_size)
    expected = copy.deepcopy(network).double()(torch.tensor([ids]), mask=band[None, None])[0].numpy()
    backend = CudaBackend(network, FLOAT32, 2)
    for slot, chunks in enumerate(((16, 12), (1, 7, 20))):
        first = 0
        for length in chunks:
            if first < len(ids):
                logits = backend.forward({slot: ids[first : first + length]})[slot]
                np.testing.assert_allclose(logits, expected[first : first + length], atol=TOLERANCE)
                first += length
    assert [backend.length(slot) for slot in range(2)] == 2 * [len(ids)]


@pytest.mark.skipif(not GPU, reason="NumPy has no bfloat16")
def test_half_precision_is_near() -> None:
    torch.manual_seed(0)
    network = GPT(BUNDLED_SHAPE).eval().requires_grad_(False)
    ids = text(300)
    backend = CudaBackend(network, BFLOAT16, 2)
    for first in range(0, 250, 50):
        logits = backend.forward({1: ids[first : first + 50]})[1]
    expected = network(torch.tensor([ids[:250]]))[0, 200:].numpy()
    np.testing.assert_allclose(logits, expected, atol=0.02)
    assert np.abs(expected).max() > 0.2


@pytest.mark.parametrize("numerics", [FLOAT32, BFLOAT16] if GPU else [FLOAT32], ids=lambda numerics: numerics.name)
@pytest.mark.parametrize("config", [BUNDLED_SHAPE, GPTConfig(65, bias=True)] if GPU else [ROTARY])
def test_a_row_is_bitwise_the_same_alone_and_in_company(config: GPTConfig, numerics: Numerics) -> None:
    """In graphs of few rows and of many, at different indices, and in chunks."""
    network = network_of(config)
    count = 140 if GPU else 8
    texts = [text(12, seed) for seed in range(count)]
    together = CudaBackend(network, numerics, count)
    together.forward({slot: ids[:4] for slot, ids in enumerate(texts)})
    rows = [
        together.forward({slot: ids[4 + step : 5 + step] for slot, ids in enumerate(texts)}) for step in range(2)
    ]
    alone = CudaBackend(network, numerics, 1)
    for slot in range(count) if GPU else (0, 5, count - 1):
        alone.truncate(0)
        logits = alone.forward({0: texts[slot][:6]})[0]
        assert np.array_equal(logits[4:], np.concatenate([step[slot] for step in rows]))


def test_it_draws_what_the_draw_draws() -> None:
    """Large seeds, positions far on, temperatures beside each other, and a limit that ends a row first."""
    seeds = ((2**53 - 1, 0), (2**32 + 7, 3), (5, 1000), (2**53 - 1, 0), (6, 0))
    noises = [GumbelNoise(seed, sample, len(VOCABULARY)) for seed, sample in seeds]
    positions = (0, 100_000, 7, 100_000, 0)
    limits = (6, 2, 6, 6, 6)
    temperatures = (0.8, 0.8, 2.0, 2.0, 0.0)
    network = network_of(ROTARY)
    backend = CudaBackend(network, FLOAT32, len(seeds))
    backend.forward({slot: [slot, 4] for slot in range(len(seeds))})
    inputs = [
        DecodeInput(slot, [slot + 9], limits[slot], temperatures[slot], gumbel_noise, positions[slot])
        for slot, gumbel_noise in enumerate(noises)
    ]
    written = backend.decode(inputs, 4, speculate=False)
    assert [len(ids) for ids, _ in written] == [4, 2, 4, 4, 4]
    again = CudaBackend(network, FLOAT32, len(seeds))
    read = again.forward({slot: [slot, 4, slot + 9, *ids[:-1]] for slot, (ids, _) in enumerate(written)})
    for slot, (ids, logits) in enumerate(written):
        np.testing.assert_allclose(logits, read[slot][2:], atol=1e-5)
        noise = noises[slot].at(positions[slot], len(ids)) * (temperatures[slot] > 0)
        scores = (logits.astype(np.float64) - logits.max(1, keepdims=True)) / (temperatures[slot] or 1) + noise
        assert ids == scores.argmax(1).tolist()


def test_it_proposes_what_the_draft_proposes() -> None:
    """After contexts that are in the table and others, and one that is shorter; with and without noise."""
    draft = tiny_draft()
    assert draft.max_context == 2
    contexts = np.random.default_rng(0).integers(len(VOCABULARY), size=(12, 3)).tolist()
    contexts.append([7])
    backend = CudaBackend(network_of(ROTARY), FLOAT32, len(contexts), draft)
    inputs = [
        DecodeInput(slot, recent, 8, [0.0, 0.8, 2.0][slot % 3], GumbelNoise(slot, 0, len(VOCABULARY)), 5 * slot)
        for slot, recent in enumerate(contexts)
    ]
    size, width = backend._shape(len(contexts), speculate=True)
    backend._step.set_sequences(backend._sequence_fields(inputs), size // width)
    backend._step.accept_and_propose(size, width)
    rows = backend._step._rows.device.cpu().numpy()
    for one in inputs:
        tokens = rows[kernels.TOKEN.value, one.slot * width : (one.slot + 1) * width].tolist()
        noise = one.gumbel_noise.at(one.position, width - 1) * (one.temperature > 0)
        proposal = draft.propose(one.context[-2:], noise, one.temperature)
        assert tokens == [one.context[-1], *proposal.ids]


@pytest.mark.skipif(not GPU, reason="interpreted, nothing is hidden")
def test_a_weight_that_is_not_a_number_is_not_hidden() -> None:
    """The maximum of NaN and 0 is 0 on a GPU: squared ReLU once turned NaN into wrong text."""
    network = network_of(BUNDLED_SHAPE)
    network.get_parameter("blocks.2.mlp.expand.weight")[5] = np.nan
    assert np.isnan(CudaBackend(network, BFLOAT16, 1).forward({0: [1]})[0]).all()


@pytest.mark.skipif(not GPU, reason="there are no graphs")
def test_models_are_loaded_beside_each_other_and_beside_texts() -> None:
    """PyTorch captures one graph at a time."""
    network = network_of(ROTARY)
    backend = CudaBackend(network, FLOAT32, 1)
    with ThreadPoolExecutor(3) as pool:
        loading = [pool.submit(CudaBackend, network, FLOAT32, slots) for slots in (1, 2, 3)]
        logits = []
        while not all(one.done() for one in loading):
            backend.truncate(0)
            logits.append(backend.forward({0: [1, 2, 3]})[0])
        others = [one.result().forward({0: [1, 2, 3]})[0] for one in loading]
    assert all(np.array_equal(one, logits[0]) for one in (*logits, *others))


@pytest.fixture
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few rows, too: interpreted, a step takes a tenth of a second."""
    if not GPU:
        monkeypatch.setattr("model.backends.cuda.backend.MAX_STEPS", 2)
        monkeypatch.setattr("model.backends.cuda.backend.WIDTHS", (Width(4, 4),))


def generators(config: GPTConfig) -> Iterator[Generator]:
    """The reference, and the kernels with and without draft tokens."""
    checkpoint = tiny_checkpoint(config)
    yield load_generator(checkpoint, CPU, 4)
    for draft in (None, tiny_draft()):
        yield Generator(CudaBackend(checkpoint.network(), FLOAT32, 4, draft), draft)


@pytest.mark.usefixtures("few_steps")
@pytest.mark.parametrize("config", [replace(one, n_layer=1, n_head=1, block_size=4) for one in (ROTARY, LEARNED)])
def test_texts_are_the_references(config: GPTConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prompts of all lengths beside each other, filters, stop strings, logprobs, a text that is given; some wait.

    The ring, of 8 positions, is written over and over.
    """
    monkeypatch.setattr(CudaBackend, "prefill_chunk", 4)
    texts: list[list[Chunk]] = []
    for generator in generators(config):
        sequences = [
            TextSequence(VOCABULARY, text(1), Sampling(0.8), 1, max_new_tokens=11),
            TextSequence(VOCABULARY, text(40), Sampling(1.0, top_p=0.9), 2, max_new_tokens=3, logprobs_from=1),
            TextSequence(VOCABULARY, text(5), Sampling(0.5), 3, max_new_tokens=6, stop=("e", "q")),
            TextSequence(VOCABULARY, text(9), Sampling(0), 4, max_new_tokens=4, logprobs_from=0),
            TextSequence(VOCABULARY, text(3), Sampling(2), 5, max_new_tokens=3),
            TextSequence(VOCABULARY, text(7), Sampling(), 6, max_new_tokens=4, logprobs_from=2, given=text(4, 1)),
        ]
        chunks: dict[TextSequence, list[Chunk]] = {sequence: [] for sequence in sequences}
        chance = np.random.default_rng(0)
        waiting = list(sequences)
        writing: list[TextSequence] = []
        while waiting or writing:
            while waiting and generator.free_slots and chance.random() < 0.5:
                writing.append(waiting.pop(0))
                generator.add(writing[-1])
            for sequence, chunk in generator.step([sequence for sequence in writing if chance.random() < 0.9]):
                chunks[sequence].append(chunk)
                if chunk.finish_reason:
                    writing.remove(sequence)
        texts.append([Chunk.joined(one) for one in chunks.values()])
    [of_reference, *of_kernels] = texts
    for of_kernel in of_kernels:
        for chunk, expected in zip(of_kernel, of_reference, strict=True):
            assert (chunk.text, chunk.finish_reason) == (expected.text, expected.finish_reason)
            probabilities = [one.probability for one in chunk.logprobs]
            np.testing.assert_allclose(
                probabilities, [one.probability for one in expected.logprobs], atol=TOLERANCE
            )


@pytest.mark.usefixtures("few_steps")
@pytest.mark.filterwarnings("ignore:invalid value")  # NumPy says so
def test_nothing_is_written_from_logits_that_are_not_finite() -> None:
    generator = Generator(CudaBackend(tiny_checkpoint().network(), FLOAT32, 2))
    sequences = [TextSequence(VOCABULARY, [3 + index], seed=index, max_new_tokens=20) for index in range(2)]
    for sequence in sequences:
        generator.add(sequence)
    list(generator.step(sequences))
    assert isinstance(generator.backend, CudaBackend)
    generator.backend._step._cache.fill_(np.nan)
    with pytest.raises(FloatingPointError):
        list(generator.step(sequences))
    assert [len(sequence.written) for sequence in sequences] == [1, 1]
    generator.reset()
    again = TextSequence(VOCABULARY, [3], max_new_tokens=5)
    reference = TextSequence(VOCABULARY, [3], max_new_tokens=5)
    list(generator.write(again))
    list(load_generator(tiny_checkpoint(), CPU, 1).write(reference))
    assert again.written == reference.written


def test_too_little_memory_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def allocate(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

    monkeypatch.setattr("model.backends.cuda.backend.Step", allocate)
    with pytest.raises(DeviceError, match="no memory for 1000 slots; use fewer"):
        CudaBackend(network_of(ROTARY), FLOAT32, 1000)


@pytest.mark.parametrize(
    ("config", "runs"), [(ROTARY, {0: []}), (ROTARY, {0: [64]}), (ROTARY, {0: 65 * [1]}), (LEARNED, {0: 17 * [1]})]
)
def test_runs_beyond_its_buffers_are_refused(config: GPTConfig, runs: dict[int, list[int]]) -> None:
    backend = CudaBackend(tiny_checkpoint(config).network(), FLOAT32, 2)
    with pytest.raises(ValueError, match="slot 0"):
        backend.forward({1: [1]} | runs)
    assert backend.length(1) == 0


def test_rejected_draft_tokens_leave_nothing_behind() -> None:
    network = network_of(ROTARY)
    ids = text(15)
    expected = EagerBackend(network, CPU, 1)
    backend = CudaBackend(network, FLOAT32, 1)
    for one in (expected, backend):
        one.forward({0: ids[:14]})
    backend.forward({0: text(6, 1)})
    backend.truncate(0, 14)
    np.testing.assert_allclose(
        backend.forward({0: [ids[14]]})[0], expected.forward({0: [ids[14]]})[0], atol=TOLERANCE
    )
