import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from model.generation.sequence import Chunk, TextSequence, make_sequences
from model.sampling.noise import gumbel_noise
from model.sampling.sampler import Logprob, Sampling
from model.vocabulary import Vocabulary

ABC = Vocabulary("abc")


def spell(text: str, **settings: object) -> tuple[list[Chunk], TextSequence]:
    """The chunks of a sequence whose model insists on `text`."""
    sequence = TextSequence(ABC, [0], Sampling(temperature=0), max_new_tokens=len(text), **settings)  # type: ignore[arg-type]
    chunks = []
    for character in text:
        [chosen] = ABC.encode(character)
        logprob = None
        if sequence.count_without_logprobs(1) == 0:
            logprob = Logprob(1.0, 1.0, len(sequence.written), 0.0, ())  # its rank is the index, to find it
        chunks.append(sequence.accept([chosen], [logprob]))
        if chunks[-1].finish_reason:
            break
    return chunks, sequence


@given(
    text=st.text("abc", min_size=1, max_size=40), stop=st.lists(st.text("abc", min_size=1, max_size=4), max_size=4)
)
def test_the_text_ends_before_the_first_stop_string(text: str, stop: list[str]) -> None:
    chunks, sequence = spell(text, stop=tuple(stop), logprobs_from=0)
    ends = [text.find(s) + len(s) for s in stop if s in text]
    if ends:  # the one that is complete first; the longest of those that are complete together
        end = min(ends)
        longest = max(len(s) for s in stop if text[:end].endswith(s))
        expected = text[: end - longest]
        reason = "stop"
        drawn = end
    else:
        expected = text
        reason = "length"
        drawn = len(text)
    assert "".join(chunk.text for chunk in chunks) == expected
    assert chunks[-1].finish_reason == reason
    assert len(sequence.written) == drawn  # not one character is drawn too many
    assert all(len(chunk.logprobs) == len(chunk.text) for chunk in chunks)


@given(
    text=st.text("abc", min_size=1, max_size=40),
    stop=st.lists(st.text("abc", min_size=1, max_size=4), max_size=4),
    first=st.integers(0, 40),
)
def test_logprobs_begin_at_a_character(text: str, stop: list[str], first: int) -> None:
    chunks, _ = spell(text, stop=tuple(stop), logprobs_from=first)
    written = 0
    for chunk in chunks:
        indices = range(written, written + len(chunk.text))
        assert [one.rank for one in chunk.logprobs] == [index for index in indices if index >= first]
        written += len(chunk.text)


def test_a_stop_string_that_cannot_be_written_ends_nothing() -> None:
    """It was refused, as "<|endoftext|>" is by most vocabularies; it never matches, and holds nothing back."""
    [sequence] = make_sequences(
        ABC, Sampling(), prompt="a", seed=0, num_samples=1, max_new_tokens=9, stop=["<|end|>", "a日", "", "ab"]
    )
    assert sequence.stop == ("ab",)


def test_text_is_held_only_while_it_may_be_a_stop_string() -> None:
    chunks, _ = spell("aabaac", stop=("aac",))
    assert [chunk.text for chunk in chunks] == ["", "", "aab", "", "", ""]
    chunks, _ = spell("abab", stop=("ac",))
    assert [chunk.text for chunk in chunks] == ["", "ab", "", "ab"]


def test_each_character_has_the_noise_of_its_position() -> None:
    """Far beyond what is computed at once, and for some positions together."""
    sequence = TextSequence(ABC, [0], Sampling(temperature=1), seed=5, sample=2, max_new_tokens=200)
    expected = gumbel_noise(5, 2, 0, 210, 3)
    for position in range(200):
        for count in (1, 8):
            assert np.array_equal(sequence.noise(count), expected[position : position + count])
        sequence.accept([0], [None])


def test_context_spans_prompt_and_text() -> None:
    sequence = TextSequence(ABC, [0, 1, 2], Sampling(temperature=0))
    sequence.written.extend([1, 1])
    assert sequence.context(2) == [1, 1]
    assert sequence.context(4) == [1, 2, 1, 1]
    assert sequence.context(9) == [0, 1, 2, 1, 1]
