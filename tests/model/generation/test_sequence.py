import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from model.generation.sequence import Chunk, TextSequence, make_sequences
from model.sampling.noise import gumbel_noise
from model.sampling.sampler import Likelihood, Sampling
from model.vocabulary import Vocabulary

ABC = Vocabulary("abc")


def spell(text: str, **settings: object) -> tuple[list[Chunk], TextSequence]:
    """The pieces of a stream whose model insists on `text`."""
    stream = TextSequence(ABC, [0], Sampling(temperature=0), max_new_tokens=len(text), **settings)  # type: ignore[arg-type]
    pieces = []
    for character in text:
        [chosen] = ABC.encode(character)
        told = (
            None if stream.count_without_logprobs(1) else Likelihood(1.0, 1.0, len(stream.written), 0.0, ())
        )  # its place, to find it
        pieces.append(stream.accept([chosen], [told]))
        if pieces[-1].finish_reason:
            break
    return pieces, stream


@given(
    text=st.text("abc", min_size=1, max_size=40), stop=st.lists(st.text("abc", min_size=1, max_size=4), max_size=4)
)
def test_the_text_ends_before_the_first_stop_string(text: str, stop: list[str]) -> None:
    pieces, stream = spell(text, stop=tuple(stop), details_from=0)
    ends = [text.find(s) + len(s) for s in stop if s in text]
    if ends:  # the one that is complete first; the longest of those that are complete together
        end = min(ends)
        longest = max(len(s) for s in stop if text[:end].endswith(s))
        expected, reason, drawn = text[: end - longest], "stop", end
    else:
        expected, reason, drawn = text, "length", len(text)
    assert "".join(piece.text for piece in pieces) == expected
    assert pieces[-1].finish_reason == reason
    assert len(stream.written) == drawn  # not one character is drawn too many
    assert all(len(piece.details) == len(piece.text) for piece in pieces)


@given(
    text=st.text("abc", min_size=1, max_size=40),
    stop=st.lists(st.text("abc", min_size=1, max_size=4), max_size=4),
    first=st.integers(0, 40),
)
def test_details_are_told_from_a_place_on(text: str, stop: list[str], first: int) -> None:
    pieces, _ = spell(text, stop=tuple(stop), details_from=first)
    written = 0
    for piece in pieces:
        places = range(written, written + len(piece.text))
        assert [one.rank for one in piece.details] == [place for place in places if place >= first]
        written += len(piece.text)


def test_a_stop_string_that_cannot_be_written_ends_nothing() -> None:
    """It was refused, as "<|endoftext|>" is by most vocabularies; it never matches, and holds nothing back."""
    [stream] = make_sequences(
        ABC, Sampling(), prompt="a", seed=0, num_samples=1, max_new_tokens=9, stop=["<|end|>", "a日", "", "ab"]
    )
    assert stream.stop == ("ab",)


def test_text_is_held_only_while_it_may_be_a_stop_string() -> None:
    pieces, _ = spell("aabaac", stop=("aac",))
    assert [piece.text for piece in pieces] == ["", "", "aab", "", "", ""]
    pieces, _ = spell("abab", stop=("ac",))
    assert [piece.text for piece in pieces] == ["", "ab", "", "ab"]


def test_each_character_has_the_luck_of_its_position() -> None:
    """Far beyond what is computed ahead, and for some places at once."""
    stream = TextSequence(ABC, [0], Sampling(temperature=1), seed=5, sample=2, max_new_tokens=200)
    expected = gumbel_noise(5, 2, 0, 210, 3)
    for place in range(200):
        for count in (1, 8):
            assert np.array_equal(stream.noise(count), expected[place : place + count])
        stream.accept([0], [None])


def test_context_spans_prompt_and_text() -> None:
    stream = TextSequence(ABC, [0, 1, 2], Sampling(temperature=0))
    stream.written.extend([1, 1])
    assert stream.context(2) == [1, 1]
    assert stream.context(4) == [1, 2, 1, 1]
    assert stream.context(9) == [0, 1, 2, 1, 1]
