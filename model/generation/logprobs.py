"""Log-probabilities of a step's characters, for those sequences and characters that they are wanted of."""

from collections.abc import Sequence

import numpy as np

from model.generation.slot_state import StepResult
from model.sampling.sampler import Logits, Sampling, compute_logprobs


def add_logprobs(results: Sequence[StepResult]) -> None:
    """Fill each result's `logprobs`, of all of them in one computation.

    Only the rows that were drawn from count: those behind a rejected draft token are of no text.
    """
    logits: list[Logits] = []
    ids: list[int] = []
    samplings: list[Sampling] = []
    alternatives: list[int] = []
    for result in results:
        sequence = result.sequence
        skipped = sequence.count_without_logprobs(len(result.ids))
        wanted = len(result.ids) - skipped
        logits.append(result.logits[skipped : len(result.ids)])
        ids += result.ids[skipped:]
        samplings += [sequence.sampling] * wanted
        alternatives += [sequence.alternatives] * wanted
        result.logprobs = [None] * skipped
    if not ids:
        return
    computed = iter(compute_logprobs(np.concatenate(logits), ids, samplings, alternatives))
    for result in results:
        while len(result.logprobs) < len(result.ids):
            result.logprobs.append(next(computed))
