"""A backend that can be held between two steps, so that tests wait for events instead of for time."""

import threading
from collections.abc import Callable, Mapping, Sequence

from model.backends.base import Backend, Writing
from model.sampling.ngram_draft import Draft
from model.sampling.sampler import Logits


class GatedBackend:
    """Another backend, whose `extend` waits while the gate is shut and `may_pass` is not true."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.config = backend.config
        self.slots = backend.slots
        self.chunk = backend.chunk
        self.prompt_rows = backend.prompt_rows
        self.drafts = backend.drafts
        self.call_cost = backend.call_cost
        self.guess_cost = backend.guess_cost
        self.draws_apart = False
        self.changed = threading.Condition()
        self.shut = False
        self.waiting = threading.Event()
        self.may_pass: Callable[[], bool] = lambda: False
        self.extended: list[set[int]] = []

    def length(self, slot: int) -> int:
        return self.backend.length(slot)

    def forget(self, slot: int, length: int = 0) -> None:
        self.backend.forget(slot, length)

    def reset(self) -> None:
        self.backend.reset()

    def extend(self, runs: Mapping[int, Sequence[int]]) -> dict[int, Logits]:
        with self.changed:
            while self.shut and not self.may_pass():
                self.waiting.set()
                self.changed.wait()
            self.waiting.clear()
        self.extended.append(set(runs))
        return self.backend.extend(runs)

    def streams_ahead(self, streams: int) -> int:
        return streams

    def steps_ahead(self, streams: int, guesses: int) -> int:
        return 0  # so that every step passes the gate

    def write(self, writings: Sequence[Writing], steps: int, draft: Draft | None) -> list[tuple[list[int], Logits]]:
        return self.backend.write(writings, steps, draft)  # never asked for

    def close(self) -> None:
        """Hold the next step."""
        with self.changed:
            self.shut = True

    def open(self) -> None:
        """Let all steps pass."""
        with self.changed:
            self.shut = False
            self.changed.notify_all()

    def step(self) -> None:
        """Let one step pass and wait until the next is held."""
        self.waiting.wait()
        self.waiting.clear()
        passes = iter([True])
        with self.changed:
            self.may_pass = lambda: next(passes, False)
            self.changed.notify_all()
        self.waiting.wait()
        self.may_pass = lambda: False
