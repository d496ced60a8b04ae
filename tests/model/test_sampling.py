import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from model.errors import InputError
from model.noise import gumbel_noise
from model.sampling import Logits, Sampling, draw, likelihood, softmax

logits_strategy = arrays(np.float32, 12, elements=st.floats(-20, 20, width=32))


def drawn(logits: Logits, sampling: Sampling, count: int = 400) -> set[int]:
    """The ids that many draws choose."""
    noise = gumbel_noise(3, 0, 0, count, len(logits))
    return set(draw(np.tile(logits, (count, 1)), [sampling] * count, noise))


def test_draws_have_the_models_frequencies() -> None:
    logits = np.array([2.0, 1.0, 0.0, -1.0], dtype=np.float32)
    sampling = Sampling(temperature=0.8, top_k=None)
    chosen = draw(np.tile(logits, (20_000, 1)), [sampling] * 20_000, gumbel_noise(1, 0, 0, 20_000, 4))
    frequencies = np.bincount(chosen, minlength=4) / len(chosen)
    np.testing.assert_allclose(frequencies, softmax(logits / 0.8), atol=0.01)


@given(logits=logits_strategy)
def test_greedy_takes_the_likeliest(logits: Logits) -> None:
    assert draw(logits[None], [Sampling(temperature=0, top_k=3)], np.zeros((1, 12))) == [int(logits.argmax())]


@given(logits=logits_strategy, k=st.integers(1, 20))
def test_top_k_keeps_the_k_likeliest(logits: Logits, k: int) -> None:
    kth = np.sort(logits)[::-1][min(k, len(logits)) - 1]
    assert all(logits[i] >= kth for i in drawn(logits, Sampling(1.0, top_k=k), 30))


def test_top_k_tells_apart_what_scaling_makes_equal() -> None:
    """Both of 1e-36 and 0 are -1 once the largest logit, 1, is taken from them, and a tie let a third in."""
    logits = np.array([1.0, 1e-36, 0.0], dtype=np.float32)
    assert drawn(logits, Sampling(1.0, top_k=2)) == {0, 1}


@given(logits=logits_strategy, p=st.floats(0.01, 1))
def test_top_p_keeps_the_smallest_set_that_reaches_p(logits: Logits, p: float) -> None:
    probabilities = softmax(logits)
    for i in drawn(logits, Sampling(1.0, top_k=None, top_p=p), 30):
        assert probabilities[probabilities > probabilities[i]].sum() < p + 1e-9


@given(logits=logits_strategy, p=st.floats(0, 1))
def test_min_p_is_relative_to_the_likeliest(logits: Logits, p: float) -> None:
    probabilities = softmax(logits)
    for i in drawn(logits, Sampling(1.0, top_k=None, min_p=p), 30):
        assert probabilities[i] >= p * probabilities.max() * (1 - 1e-9)


@given(logits=logits_strategy, temperature=st.sampled_from([1e-300, 1e-9, 0.5, 100.0]))
def test_no_temperature_overflows(logits: Logits, temperature: float) -> None:
    noise = gumbel_noise(0, 0, 0, 1, len(logits))
    with np.errstate(over="ignore"):
        [chosen] = draw(logits[None], [Sampling(temperature, top_p=0.9, min_p=0.01)], noise)
    if temperature < 1e-8:
        assert logits[chosen] == pytest.approx(logits.max(), abs=1e-6)
    assert 0 <= chosen < len(logits)


def test_rows_do_not_change_each_other() -> None:
    random = np.random.default_rng(0)
    logits, noise = random.normal(size=(9, 12)).astype(np.float32), gumbel_noise(1, 0, 0, 9, 12)
    samplings = [
        Sampling(),
        Sampling(0),
        Sampling(2, top_k=3),
        Sampling(1, None, top_p=0.5),
        Sampling(1, min_p=0.3),
    ]
    samplings = (samplings * 2)[:9]
    noise[[i for i, sampling in enumerate(samplings) if not sampling.temperature]] = 0
    alone = [draw(logits[i : i + 1], [samplings[i]], noise[i : i + 1])[0] for i in range(9)]
    assert draw(logits, samplings, noise) == alone


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", -1),
        ("temperature", float("nan")),
        ("top_k", 0),
        ("top_p", 0),
        ("top_p", 1.1),
        ("min_p", -0.1),
    ],
)
def test_values_out_of_range_are_refused_by_name(field: str, value: float) -> None:
    with pytest.raises(InputError) as caught:
        Sampling(**{field: value})  # type: ignore[arg-type]
    assert caught.value.field == field


def test_likelihood_is_the_models_own_view() -> None:
    logits = np.log(np.array([0.125, 0.5, 0.25, 0.125], dtype=np.float32))
    seen = likelihood(logits, 2)
    assert seen.probability == pytest.approx(0.25)
    assert seen.rank == 2
    assert seen.entropy == pytest.approx(1.75)  # bits
    assert [i for i, _ in seen.alternatives] == [1, 2, 0, 3]
