"""Promises 1 and 2: a text depends on its request alone, and its context never ends."""

import random
from functools import cache, reduce
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.backends.base import DecodePlan
from model.backends.cpu.backend import Int8Backend
from model.checkpoint import read_checkpoint
from model.config import GPTConfig
from model.device import Numerics
from model.generation.generator import Generator, load_generator
from model.generation.sequence import Chunk, TextSequence
from model.sampling.ngram_draft import Draft
from model.sampling.sampler import Sampling
from tests.tiny import CPU, INT8, LEARNED, ROTARY, VOCABULARY, tiny_checkpoint, tiny_draft, tiny_generator

SAMPLINGS = [
    Sampling(),
    Sampling(temperature=0),
    Sampling(temperature=1.5, top_k=5),
    Sampling(temperature=1, top_k=None, top_p=0.9),
    Sampling(temperature=0.5, min_p=0.05),
]
BUNDLED = Path(__file__).parents[3] / "checkpoints" / "shakespeare-char"
PROMPT = "ROMEO: what light through yonder window breaks"


def make_sequence(index: int, length: int = 60) -> TextSequence:
    prompt = VOCABULARY.encode(PROMPT[: 1 + 5 * index % len(PROMPT)])
    sampling = SAMPLINGS[index % len(SAMPLINGS)]
    stop = ("qu", "z") if index % 4 == 3 else ()
    return TextSequence(
        VOCABULARY, prompt, sampling, seed=index, sample=index % 3, max_new_tokens=length, stop=stop
    )


def write(generator: Generator, sequence: TextSequence) -> str:
    return "".join(chunk.text for chunk in generator.write(sequence))


@cache
def alone(config: GPTConfig, numerics: Numerics) -> list[str]:
    """The texts of 16 requests, each written without company, on one thread, without a draft."""
    return [write(tiny_generator(config, 1, numerics, 1), make_sequence(index)) for index in range(16)]


@pytest.mark.parametrize("drafts", [False, True])
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("numerics", [CPU, INT8], ids=lambda numerics: numerics.name)
@pytest.mark.parametrize("config", [LEARNED, ROTARY])
def test_the_same_request_gives_the_same_text_in_any_company(
    config: GPTConfig, numerics: Numerics, threads: int, drafts: bool
) -> None:
    """Sequences join, pause, are given up and end at random steps; whatever was written is as if written alone."""
    expected = alone(config, numerics)
    assert len(set(expected)) == 16
    generator = tiny_generator(config, 7, numerics, threads, draft=tiny_draft() if drafts else None)
    chance = random.Random(threads)
    waiting = [make_sequence(index) for index in range(16)] + [make_sequence(index) for index in range(0, 16, 3)]
    texts = dict.fromkeys(waiting, "")
    ended: list[TextSequence] = []
    active: list[TextSequence] = []
    while waiting or active:
        while waiting and generator.free_slots and chance.random() < 0.5:
            active.append(waiting.pop(0))
            generator.add(active[-1])
        if len(active) > 2 and chance.random() < 0.02:
            gone = active.pop(chance.randrange(len(active)))
            generator.remove(gone)
        for sequence, chunk in list(generator.step([sequence for sequence in active if chance.random() < 0.8])):
            texts[sequence] += chunk.text
            if chunk.finish_reason:
                active.remove(sequence)
                ended.append(sequence)
    for sequence, text in texts.items():
        whole = expected[sequence.seed]
        assert whole.startswith(text)
        assert sequence not in ended or text == whole
    assert len(ended) >= 12
    assert generator.free_slots == 7


@settings(max_examples=30)
@given(
    seed=st.integers(0, 2**53 - 1),
    temperature=st.sampled_from([0, 0.3, 0.8, 1, 3]),
    top_k=st.sampled_from([None, 1, 4]),
    top_p=st.sampled_from([None, 0.5]),
    stop=st.sampled_from([(), ("e",), ("ab", "t ")]),
)
@pytest.mark.parametrize("config", [LEARNED, ROTARY])
def test_draft_tokens_never_change_a_text(
    config: GPTConfig, seed: int, temperature: float, top_k: int | None, top_p: float | None, stop: tuple[str, ...]
) -> None:
    texts = []
    for draft in (None, tiny_draft()):
        generator = tiny_generator(config, slots=1, draft=draft)
        sequence = TextSequence(
            VOCABULARY, [3], Sampling(temperature, top_k, top_p), seed=seed, max_new_tokens=70, stop=stop
        )
        texts.append((write(generator, sequence), sequence.written))
    assert texts[0] == texts[1]


@pytest.mark.parametrize("numerics", [CPU, INT8], ids=lambda numerics: numerics.name)
def test_nobody_waits_for_ever_while_others_read_their_windows_again(numerics: Numerics) -> None:
    """Windows that begin again went before prompts that had not been read at all: half of the sequences starved."""
    generator = tiny_generator(LEARNED, 12, numerics, 1)
    sequences = [TextSequence(VOCABULARY, [i], seed=i, max_new_tokens=10_000) for i in range(12)]
    for sequence in sequences:
        generator.add(sequence)
    for _ in range(200):
        list(generator.step(sequences))
    written = [len(sequence.written) for sequence in sequences]
    assert min(written) > 0.5 * max(written)


@pytest.mark.parametrize("drafts", [False, True])
@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("config", [LEARNED, ROTARY])
def test_multi_step_decode_never_changes_a_text(
    config: GPTConfig, threads: int, drafts: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sequences that take several steps in one call, and the logprobs of their characters."""

    def sequences() -> list[TextSequence]:
        return [
            TextSequence(
                *(VOCABULARY, [3 + index], Sampling([0.8, 0, 0.3, 2][index % 4]), index),
                max_new_tokens=20 + 9 * index,
                stop=("qu", "z", "e t") if index % 3 == 2 else (),
                logprobs_from=[None, 0, 13][index % 3],
            )
            for index in range(12)
        ]

    texts: list[list[Chunk]] = []
    for multi_step in (False, True):
        generator = tiny_generator(config, 12, INT8, threads, draft=tiny_draft() if drafts else None)
        if not multi_step:
            monkeypatch.setattr(generator.backend, "plan_decode", lambda ready: DecodePlan(ready, 0))
        chunks: dict[TextSequence, list[Chunk]] = {sequence: [] for sequence in sequences()}
        chance = random.Random(0)
        writing = list(chunks)
        for sequence in writing:
            generator.add(sequence)
        calls = 0
        while writing:
            calls += 1
            for sequence, chunk in generator.step([sequence for sequence in writing if chance.random() < 0.9]):
                chunks[sequence].append(chunk)
                if chunk.finish_reason:
                    writing.remove(sequence)
        texts.append([Chunk.joined(one) for one in chunks.values()])
        assert generator.free_slots == 12
        most = max(len(sequence.written) for sequence in chunks)
        assert calls < most if multi_step else calls >= most / 8
    assert texts[0] == texts[1]


@pytest.mark.parametrize("steps", [0, 4])
def test_nothing_is_written_from_logits_that_are_not_finite(steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = tiny_generator(slots=2)
    monkeypatch.setattr(generator.backend, "plan_decode", lambda ready: DecodePlan(ready, steps))
    assert isinstance(generator.backend, Int8Backend)
    sequences = [TextSequence(VOCABULARY, [3 + index], seed=index, max_new_tokens=40) for index in range(2)]
    for sequence in sequences:
        generator.add(sequence)
    while any(len(sequence.written) < 5 for sequence in sequences):
        list(generator.step(sequences))
    before = [list(sequence.written) for sequence in sequences]
    generator.backend._cache.scales.fill(np.nan)
    with pytest.raises(FloatingPointError):
        next(generator.step(sequences))
    assert [sequence.written for sequence in sequences] == before
    generator.reset()
    assert write(generator, make_sequence(0)) == write(tiny_generator(slots=1), make_sequence(0))


def test_accepted_draft_tokens_save_calls() -> None:
    """A draft that says what the model says: 7 draft tokens and one more character a step, 8 steps a call."""
    generator = tiny_generator(slots=1)
    written = VOCABULARY.encode(write(generator, TextSequence(VOCABULARY, [3], Sampling(0), max_new_tokens=200)))
    contexts = {tuple(([3, *written[:i]])[-6:]): written[i] for i in range(200)}
    base = len(VOCABULARY) + 1
    keys = {reduce(lambda key, id_: key * base + id_ + 1, context, 0): id_ for context, id_ in contexts.items()}
    ordered = np.array(sorted({0, *keys}), dtype=np.int64)
    surprisal = np.full((len(ordered), len(VOCABULARY)), 255, dtype=np.uint8)
    for row, key in enumerate(ordered.tolist()):
        surprisal[row, keys.get(key, 0)] = 0
    generator = tiny_generator(slots=1, draft=Draft(ordered, surprisal))
    for sampling, calls in ((Sampling(0), 1 + 3), (Sampling(1, top_k=1), 200 / 8)):
        again = TextSequence(VOCABULARY, [3], sampling, max_new_tokens=200)
        generator.add(again)
        made = 0
        while again.remaining:
            made += 1
            list(generator.step([again]))
        assert again.written == written
        assert made == calls


def test_draft_tokens_never_change_the_bundled_models_text() -> None:
    """A hundred prompts, all ways to choose a character, with and without stop strings."""
    checkpoint = read_checkpoint(BUNDLED)
    generator = load_generator(checkpoint, INT8, slots=20)
    vocabulary = checkpoint.vocabulary
    prompts = (PROMPT * 4)[:100]
    samplings = [*SAMPLINGS, Sampling(0.8, top_k=10, top_p=0.95, min_p=0.01), Sampling(100), Sampling(1, top_k=1)]

    def write_all() -> tuple[list[list[int]], int]:
        waiting = [
            TextSequence(
                vocabulary,
                vocabulary.encode(prompts[: index + 1]),
                samplings[index % len(samplings)],
                seed=index,
                max_new_tokens=60,
                stop=("the ",) if index % 5 == 4 else (),
            )
            for index in range(100)
        ]
        sequences = list(waiting)
        active: list[TextSequence] = []
        calls = 0
        while waiting or active:
            while waiting and len(active) < 3:
                active.append(waiting.pop(0))
                generator.add(active[-1])
            calls += 1
            ended = [sequence for sequence, chunk in generator.step(active) if chunk.finish_reason]
            active = [sequence for sequence in active if sequence not in ended]
        return [sequence.written for sequence in sequences], calls

    assert generator.draft is not None
    with_draft, calls = write_all()
    generator.draft = None
    plain, more = write_all()
    assert with_draft == plain
    assert calls < 0.8 * more


def test_learned_positions_keep_the_newer_half() -> None:
    """When the window is full, greedy text continues as if its last half were a new prompt."""
    generator = tiny_generator(LEARNED, 1, CPU)
    sequence = TextSequence(VOCABULARY, VOCABULARY.encode("ROMEO:"), Sampling(temperature=0), max_new_tokens=100)
    written = VOCABULARY.encode(write(generator, sequence))
    network = tiny_checkpoint(LEARNED).network()
    context = VOCABULARY.encode("ROMEO:")
    for character in written:
        if len(context) > LEARNED.block_size:
            context = context[-LEARNED.block_size // 2 :]
        with torch.inference_mode():
            logits = network(torch.tensor([context]))[0, -1]
        assert character == int(logits.argmax())
        context.append(character)


def test_a_long_prompt_is_cut_to_its_end() -> None:
    end = "what light through"[-16:]
    long = TextSequence(VOCABULARY, VOCABULARY.encode("ROMEO: But soft, " + end))
    short = TextSequence(VOCABULARY, VOCABULARY.encode(end))
    generator = tiny_generator(ROTARY, slots=1)
    assert write(generator, long) == write(generator, short)


def test_a_sequence_given_up_leaves_its_slot() -> None:
    generator = tiny_generator(slots=1)
    chunks = generator.write(make_sequence(1))
    next(chunks)
    assert generator.free_slots == 0
    chunks.close()
    assert generator.free_slots == 1
