"""The vectorised model equals one that counts in dictionaries, and is a distribution."""

import math
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.dataset import Ids
from training.ngram import KneserNey, baselines


def ids(values: list[int]) -> Ids:
    return np.array(values, dtype=np.uint16)


texts = st.lists(st.integers(0, 3), min_size=4, max_size=60)


@given(texts, st.lists(st.integers(0, 4), max_size=4), st.integers(1, 4))
def test_what_may_follow_sums_to_one(text: list[int], context: list[int], order: int) -> None:
    model = KneserNey(ids(text), order, vocab_size=5)
    total = sum(model.probabilities(ids([*context, following]))[-1] for following in range(5))
    assert total == pytest.approx(1)


@given(texts, texts)
def test_a_bigram_equals_one_counted_by_hand(text: list[int], other: list[int]) -> None:
    model = KneserNey(ids(text), 2, vocab_size=4)
    pairs = Counter(pairwise(text))
    before = Counter(b for _, b in pairs)  # how many different ids come before b
    low, high = (level.discounts for level in model.levels)

    def unigram(b: int) -> float:
        left = sum(low[min(n, 3)] for n in before.values())
        return float((before[b] - low[min(before[b], 3)] + left / 4) / before.total())

    for place, (a, b) in enumerate(pairwise(other), start=1):
        after = {pair: n for pair, n in pairs.items() if pair[0] == a}
        if not after:
            expected = unigram(b)
        else:
            total = sum(after.values())
            left = sum(high[min(n, 3)] for n in after.values())
            n = pairs[(a, b)]
            expected = float((n - high[min(n, 3)] + left * unigram(b)) / total)
        assert model.probabilities(ids(other))[place] == pytest.approx(expected)


def test_more_context_predicts_a_repetitive_text_better() -> None:
    text = ids([0, 1, 2, 1, 0, 3] * 50)
    losses = [KneserNey(text, order, 4).loss(text) for order in (1, 2, 3)]
    assert losses == sorted(losses, reverse=True)
    assert losses[2] < 0.2


def test_baselines_are_chance_and_each_order_that_the_text_is_long_enough_for() -> None:
    text = ids([0, 1, 2, 1, 0, 3] * 50)
    other = ids([0, 1, 2, 1, 3, 3])
    found = baselines(text, other, 4)
    assert found == {"uniform": math.log(4)} | {
        f"{order}-gram": KneserNey(text, order, 4).loss(other) for order in (1, 2, 3, 5)
    }
    assert list(baselines(ids([0, 1, 2, 3]), other, 4)) == ["uniform", "1-gram", "2-gram", "3-gram"]
