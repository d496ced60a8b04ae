"""A given text has the log-probabilities it had when it was written, in any company, and changes no other text."""

import math
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.checkpoint import read_checkpoint
from model.config import GPTConfig
from model.device import Numerics
from model.errors import InputError, UnknownCharactersError
from model.generation.generator import Generator, load_generator
from model.generation.sequence import Chunk, TextSequence, make_scored_sequence, make_sequences
from model.sampling.sampler import Logprob, Sampling
from tests.tiny import CPU, INT8, LEARNED, ROTARY, VOCABULARY, tiny_checkpoint, tiny_draft, tiny_generator

BUNDLED = Path(__file__).parents[3] / "checkpoints" / "shakespeare-char"
PROMPT = "ROMEO: what light through yonder window breaks"
SAMPLINGS = [
    Sampling(),
    Sampling(0),
    Sampling(1.5, top_k=5),
    Sampling(1, None, top_p=0.9),
    Sampling(0.5, min_p=0.05),
]


def read(generator: Generator, sequence: TextSequence) -> tuple[str, list[Logprob]]:
    """A sequence's whole text and its logprobs, written alone."""
    chunks = list(generator.write(sequence))
    whole = Chunk.joined(chunks)
    return whole.text, list(whole.logprobs)


def written(generator: Generator, prompt: str, sampling: Sampling, seed: int = 3, length: int = 60) -> TextSequence:
    [sequence] = make_sequences(
        VOCABULARY,
        sampling,
        prompt=prompt,
        seed=seed,
        num_samples=1,
        max_new_tokens=length,
        stop=(),
        logprobs_from=[0],
        alternatives=9,
    )
    return sequence


def scored(prompt: str, text: str, sampling: Sampling, first: int = 0) -> TextSequence:
    return make_scored_sequence(VOCABULARY, sampling, prompt=prompt, text=text, first=first, alternatives=9)


def flat(logprobs: list[Logprob]) -> list[float]:
    """All numbers of some logprobs."""
    numbers: list[float] = []
    for one in logprobs:
        numbers += [one.probability, one.final, one.rank, one.entropy]
        for alternative in one.alternatives:
            numbers += alternative
    return numbers


@settings(max_examples=25)
@given(
    prompt=st.integers(1, len(PROMPT)),
    length=st.integers(1, 70),
    first=st.integers(0, 69),
    sampling=st.sampled_from(SAMPLINGS),
    seed=st.integers(0, 1000),
)
@pytest.mark.parametrize("numerics", [CPU, INT8], ids=lambda numerics: numerics.name)
@pytest.mark.parametrize("config", [LEARNED, ROTARY])
def test_a_score_has_the_logprobs_of_the_text_when_it_was_written(
    config: GPTConfig, numerics: Numerics, prompt: int, length: int, first: int, sampling: Sampling, seed: int
) -> None:
    """Beyond `block_size`, 16, too, where rotary windows roll and learned positions begin again."""
    generator = tiny_generator(config, 1, numerics, 1, draft=tiny_draft())
    first %= length
    text, expected = read(generator, written(generator, PROMPT[:prompt], sampling, seed, length))
    again, logprobs = read(generator, scored(PROMPT[:prompt], text, sampling, first))
    assert again == text
    if numerics is INT8:
        assert logprobs == expected[first:]
    else:
        assert flat(logprobs) == pytest.approx(flat(expected[first:]), abs=1e-5)


def test_a_score_is_the_networks_own_probability() -> None:
    """By the network without a cache, while all fits in the block."""
    ids = VOCABULARY.encode("ROMEO: But soft!")
    with torch.inference_mode():
        expected = tiny_checkpoint(LEARNED).network()(torch.tensor([ids]))[0].softmax(-1)
    _, logprobs = read(tiny_generator(LEARNED, 1, CPU), scored("ROMEO:", " But soft!", Sampling()))
    assert [one.probability for one in logprobs] == pytest.approx(
        [float(expected[position - 1, ids[position]]) for position in range(6, 16)], rel=1e-3
    )


@pytest.mark.parametrize("numerics", [CPU, INT8], ids=lambda numerics: numerics.name)
@pytest.mark.parametrize("config", [LEARNED, ROTARY])
def test_scores_and_texts_in_one_company(config: GPTConfig, numerics: Numerics) -> None:
    """They join, pause, leave and end at random steps; each text and each score is as if alone."""
    alone = tiny_generator(config, 1, numerics, 1)
    chance = random.Random(5)
    texts: dict[TextSequence, str] = {}
    waiting: list[TextSequence] = []
    whole: dict[TextSequence, tuple[str, list[Logprob]]] = {}
    for index in range(14):
        prompt = PROMPT[: 1 + 5 * index % len(PROMPT)]
        sampling = SAMPLINGS[index % len(SAMPLINGS)]
        whole[sequence := written(alone, prompt, sampling, index)] = read(
            alone, written(alone, prompt, sampling, index)
        )
        text = whole[sequence][0]
        whole[score := scored(prompt, text, sampling, first=index)] = text, whole[sequence][1][index:]
        waiting += [sequence, score]
    chance.shuffle(waiting)
    generator = tiny_generator(config, 6, numerics, 2, draft=tiny_draft())
    active: list[TextSequence] = []
    logprobs: dict[TextSequence, list[Logprob]] = {}
    ended: list[TextSequence] = []
    while waiting or active:
        while waiting and generator.free_slots and chance.random() < 0.5:
            active.append(waiting.pop(0))
            generator.add(active[-1])
            texts[active[-1]] = ""
            logprobs[active[-1]] = []
        if len(active) > 2 and chance.random() < 0.02:
            gone = active.pop(chance.randrange(len(active)))
            generator.remove(gone)
        for sequence, chunk in list(generator.step([sequence for sequence in active if chance.random() < 0.8])):
            texts[sequence] += chunk.text
            logprobs[sequence] += chunk.logprobs
            if chunk.finish_reason:
                active.remove(sequence)
                ended.append(sequence)
    assert sum(sequence.given is not None for sequence in ended) >= 8
    for sequence, (text, expected_logprobs) in whole.items():
        assert text.startswith(texts[sequence])
        assert expected_logprobs[: len(logprobs[sequence])] == logprobs[sequence]
        assert sequence not in ended or (texts[sequence], logprobs[sequence]) == (text, expected_logprobs)
    assert generator.free_slots == 6


def test_long_scores_do_not_hold_others_up() -> None:
    """A text goes on in every step, a prompt is read at once, and every score moves too."""
    generator = tiny_generator(ROTARY, 8, INT8, 1)
    scores = [scored("R", "ab" * 300, Sampling()) for _ in range(5)]
    text, late = (TextSequence(VOCABULARY, VOCABULARY.encode(PROMPT), seed=i, max_new_tokens=100) for i in range(2))
    for sequence in [*scores, text]:
        generator.add(sequence)
    list(generator.step([*scores, text]))
    rows = []
    forward = generator.backend.forward

    def counted(runs: Any) -> Any:
        rows.append(sum(map(len, runs.values())))
        return forward(runs)

    generator.backend.forward = counted  # type: ignore[method-assign]
    generator.add(late)
    for step in range(20):
        list(generator.step([*scores, text, late]))
        assert len(text.written) == step + 2
        assert len(late.written) == step + 1
        assert all(len(score.written) >= step + 2 for score in scores)
    assert max(rows) <= generator.backend.prefill_budget + 7
    assert sum(rows) > 20 * generator.backend.prefill_budget  # what prompts leave is used


def test_a_score_reads_many_characters_in_one_call() -> None:
    generator = tiny_generator(ROTARY, 1, INT8, 1)
    sequence = scored("R", "a" * 160, Sampling())
    generator.add(sequence)
    calls = 0
    while generator.free_slots == 0:
        list(generator.step([sequence]))
        calls += 1
    assert calls == math.ceil(160 / generator.backend.prefill_chunk)


def test_what_cannot_be_scored_is_refused_by_name() -> None:
    with pytest.raises(InputError) as caught:
        scored("R", "abc", Sampling(), first=3)
    assert (caught.value.field, caught.value.message) == ("first", "3 is beyond the text; its last character is 2")
    for prompt, text, field in (("日", "a", "prompt"), ("a", "b日", "text"), ("", "a", "prompt")):
        with pytest.raises(InputError) as caught:
            scored(prompt, text, Sampling())
        assert caught.value.field == field
    with pytest.raises(UnknownCharactersError) as unknown:
        scored("R", "ab日", Sampling())
    assert [one.position for one in unknown.value.unknown] == [2]


def test_the_bundled_models_texts_are_scored_as_they_were_written() -> None:
    """Twice its window of 256 characters, written with draft tokens and read in chunks."""
    checkpoint = read_checkpoint(BUNDLED)
    generator = load_generator(checkpoint, INT8, slots=2)
    vocabulary = checkpoint.vocabulary
    [sequence] = make_sequences(
        vocabulary, Sampling(), prompt=PROMPT, seed=1, num_samples=1, max_new_tokens=512, stop=(), logprobs_from=[0]
    )
    text, expected = read(generator, sequence)
    again = make_scored_sequence(vocabulary, Sampling(), prompt=PROMPT, text=text, first=100, alternatives=5)
    assert read(generator, again) == (text, expected[100:])
