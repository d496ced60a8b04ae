import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.sampling.noise import SEED_LIMIT, GumbelNoise, gumbel_noise, philox4x32

seeds = st.integers(0, SEED_LIMIT - 1)


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_philox_gives_the_published_answers(
    counter: tuple[int, ...], key: tuple[int, int], expected: tuple[int, ...]
) -> None:
    """Known-answer vectors of Random123, the authors' own implementation."""
    assert philox4x32(np.array(counter, dtype=np.uint64), key).tolist() == list(expected)


@given(seed=seeds, sample=st.integers(0, 15), position=st.integers(0, 100_000), offset=st.integers(0, 40))
def test_noise_is_a_function_of_its_position(seed: int, sample: int, position: int, offset: int) -> None:
    many = gumbel_noise(seed, sample, position, 64, 65)
    one = gumbel_noise(seed, sample, position + offset, 1, 65)
    assert np.array_equal(many[offset], one[0])
    assert np.array_equal(many[:, :10], gumbel_noise(seed, sample, position, 64, 10))


def test_seed_sample_and_position_each_change_the_noise() -> None:
    arguments = [(1, 0, 0), (2, 0, 0), (1 + (1 << 32), 0, 0), (1, 1, 0), (1, 0, 1)]
    rows = {gumbel_noise(seed, sample, position, 1, 4).tobytes() for seed, sample, position in arguments}
    assert len(rows) == len(arguments)


def test_noise_is_standard_gumbel() -> None:
    noise = gumbel_noise(7, 0, 0, 4000, 65)
    assert np.isfinite(noise).all()
    assert noise.mean() == pytest.approx(np.euler_gamma, abs=0.01)
    assert noise.var() == pytest.approx(np.pi**2 / 6, abs=0.02)


@given(calls=st.lists(st.tuples(st.integers(0, 300), st.integers(0, 100)), min_size=1, max_size=20))
def test_a_texts_noise_does_not_depend_on_the_calls_before(calls: list[tuple[int, int]]) -> None:
    """Also after calls for later positions; and what was returned does not change."""
    text_noise = GumbelNoise(5, 2, 6)
    expected = gumbel_noise(5, 2, 0, 400, 6)
    returned = [text_noise.at(position, count) for position, count in calls]
    for (position, count), noise in zip(calls, returned, strict=True):
        assert np.array_equal(noise, expected[position : position + count])
