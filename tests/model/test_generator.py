"""Promises 1 and 2: a text depends on its request alone, and its context never ends."""

import pytest
import torch

from model.config import GPTConfig
from model.generator import Generator
from model.sampling import Sampling
from model.stream import Stream
from tests.tiny import LEARNED, ROTARY, VOCABULARY, tiny_checkpoint, tiny_generator


def make_stream(index: int, length: int = 60) -> Stream:
    prompt = VOCABULARY.encode("ROMEO: what light"[: 1 + index])
    return Stream(VOCABULARY, prompt, seed=index, sample=index % 3, max_new_tokens=length)


def write(generator: Generator, stream: Stream) -> str:
    return "".join(piece.text for piece in generator.write(stream))


@pytest.mark.parametrize("config", [LEARNED, ROTARY])
def test_the_same_seed_gives_the_same_text_alone_and_beside_fifteen_others(config: GPTConfig) -> None:
    alone = [write(tiny_generator(config, slots=1), make_stream(index)) for index in range(16)]
    generator = tiny_generator(config, slots=16)
    streams = [make_stream(index) for index in range(16)]
    texts = dict.fromkeys(streams, "")
    active: list[Stream] = []
    waiting = list(streams)
    while waiting or active:
        if waiting:  # they join one by one, between steps
            stream = waiting.pop(0)
            texts[stream] += generator.add(stream).text
            active.append(stream)
        for stream, piece in list(generator.step(active)):
            texts[stream] += piece.text
            if piece.finish_reason:
                active.remove(stream)
    assert list(texts.values()) == alone
    assert len(set(alone)) == 16
    assert generator.free_slots == 16


def test_learned_positions_keep_the_newer_half() -> None:
    """When the window is full, greedy text continues as if its last half were a new prompt."""
    generator, length = tiny_generator(LEARNED, slots=1), 100
    stream = Stream(VOCABULARY, VOCABULARY.encode("ROMEO:"), Sampling(temperature=0), max_new_tokens=length)
    written = VOCABULARY.encode(write(generator, stream))
    network, context = tiny_checkpoint(LEARNED).network(), VOCABULARY.encode("ROMEO:")
    for character in written:
        if len(context) > LEARNED.block_size:
            context = context[-LEARNED.block_size // 2 :]
        with torch.inference_mode():
            logits = network(torch.tensor([context]))[0, -1]
        assert character == int(logits.argmax())
        context.append(character)


def test_a_long_prompt_is_cut_to_its_end() -> None:
    end = "what light through"[-16:]
    long = Stream(VOCABULARY, VOCABULARY.encode("ROMEO: But soft, " + end))
    short = Stream(VOCABULARY, VOCABULARY.encode(end))
    generator = tiny_generator(ROTARY, slots=1)
    assert write(generator, long) == write(generator, short)


def test_a_stream_given_up_leaves_its_slot() -> None:
    generator = tiny_generator(slots=1)
    pieces = generator.write(make_stream(1))
    next(pieces)
    assert generator.free_slots == 0
    pieces.close()  # type: ignore[attr-defined]
    assert generator.free_slots == 1
