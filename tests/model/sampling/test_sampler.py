import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from model.errors import InputError
from model.sampling.noise import gumbel_noise
from model.sampling.sampler import Logits, Sampling, compute_logprobs, draw, softmax

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
    logits = random.normal(size=(9, 12)).astype(np.float32)
    noise = gumbel_noise(1, 0, 0, 9, 12)
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
        ("top_p", -0.1),
        ("top_p", 1.1),
        ("min_p", -0.1),
    ],
)
def test_values_out_of_range_are_refused_by_name(field: str, value: float) -> None:
    with pytest.raises(InputError) as caught:
        Sampling(**{field: value})  # type: ignore[arg-type]
    assert caught.value.field == field


def test_a_logprob_is_the_models_own_view_and_the_one_drawn_from() -> None:
    logits = np.log(np.array([[0.125, 0.5, 0.25, 0.125]], dtype=np.float32))
    [seen] = compute_logprobs(logits, [2], [Sampling(temperature=0.5, top_k=2)], [9])
    assert seen.probability == pytest.approx(0.25)
    assert seen.final == pytest.approx(0.2)  # 0.5² and 0.25² are left, as 4 to 1
    assert seen.rank == 2
    assert seen.entropy == pytest.approx(1.75)  # bits
    expected = [(1, 0.5, 0.8), (2, 0.25, 0.2), (0, 0.125, 0.0), (3, 0.125, 0.0)]
    assert [pytest.approx(one) for one in expected] == list(seen.alternatives)


def test_at_temperature_0_the_likeliest_is_certain() -> None:
    logits = np.array([[1.0, 3.0, 3.0]] * 3, dtype=np.float32)
    finals = [one.final for one in compute_logprobs(logits, [0, 1, 2], [Sampling(0)] * 3, [0] * 3)]
    assert finals == [0, 1, 0]


def test_the_least_likely_keep_their_probabilities() -> None:
    """They were rounded to six decimals, so that a page could not draw again from their logarithms."""
    logits = np.array([[0.0, -60.0, -700.0, -2000.0]], dtype=np.float32)
    [seen] = compute_logprobs(logits, [2], [Sampling(1.0, None)], [4])
    assert [p for _, p, _ in seen.alternatives] == pytest.approx([1, np.exp(-60), np.exp(-700), 0])
    assert seen.entropy >= 0


samplings = st.builds(
    Sampling,
    temperature=st.sampled_from([0, 1e-300, 0.5, 1, 3]),
    top_k=st.sampled_from([None, 1, 5, 200]),
    top_p=st.sampled_from([None, 0.5, 1.0]),
    min_p=st.sampled_from([None, 0.0, 0.2]),
)


@given(logits=arrays(np.float32, (8, 12), elements=st.floats(-20, 20, width=32)), data=st.data())
def test_logprobs_do_not_change_each_other(logits: Logits, data: st.DataObject) -> None:
    wanted = data.draw(st.lists(samplings, min_size=8, max_size=8))
    chosen = data.draw(st.lists(st.integers(0, 11), min_size=8, max_size=8))
    counts = data.draw(st.lists(st.integers(0, 20), min_size=8, max_size=8))
    together = compute_logprobs(logits, chosen, wanted, counts)
    for i, one in enumerate(together):
        assert compute_logprobs(logits[i : i + 1], chosen[i : i + 1], wanted[i : i + 1], counts[i : i + 1]) == [one]
        assert one.rank == 1 + sum(v > logits[i, chosen[i]] for v in logits[i]) + sum(
            logits[i, : chosen[i]] == logits[i, chosen[i]]
        )
        assert len(one.alternatives) == min(counts[i], 12)


@given(logits=logits_strategy, sampling=samplings)
def test_only_what_can_be_drawn_has_a_final_probability(logits: Logits, sampling: Sampling) -> None:
    [seen] = compute_logprobs(logits[None], [0], [sampling], [12])
    finals = {i: final for i, _, final in seen.alternatives}
    assert sum(finals.values()) == pytest.approx(1)
    noise = gumbel_noise(3, 0, 0, 30, 12) * (sampling.temperature > 0)
    with np.errstate(over="ignore"):
        assert all(finals[i] > 0 for i in draw(np.tile(logits, (30, 1)), [sampling] * 30, noise))
    assert seen.final == finals[0]


@given(logits=arrays(np.float32, 5, elements=st.floats(-3, 3, width=32)), sampling=samplings)
def test_final_probabilities_are_the_draws_frequencies(logits: Logits, sampling: Sampling) -> None:
    [seen] = compute_logprobs(logits[None], [0], [sampling], [5])
    noise = gumbel_noise(1, 0, 0, 4000, 5) * (sampling.temperature > 0)
    counts = np.bincount(draw(np.tile(logits, (4000, 1)), [sampling] * 4000, noise), minlength=5)
    for i, _, final in seen.alternatives:
        assert counts[i] / 4000 == pytest.approx(final, abs=0.04)
