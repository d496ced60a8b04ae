"""A backend that can be held between two steps, so that tests wait for events instead of for time."""

import threading
from collections.abc import Callable, Mapping, Sequence

from model.backends.base import Backend, MultiStepDecode
from model.sampling.sampler import Logits


class GatedBackend:
    """Another backend, whose `forward` waits while the gate is shut and `may_pass` is not true."""

    multi_step: MultiStepDecode | None = None  # so that every step passes the gate

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.config = backend.config
        self.slots = backend.slots
        self.prefill_chunk = backend.prefill_chunk
        self.prefill_budget = backend.prefill_budget
        self.speculation = backend.speculation
        self.changed = threading.Condition()
        self.shut = False
        self.waiting = threading.Event()
        self.may_pass: Callable[[], bool] = lambda: False
        self.forwarded: list[set[int]] = []  # slots of each `forward`

    def length(self, slot: int) -> int:
        return self.backend.length(slot)

    def truncate(self, slot: int, length: int = 0) -> None:
        self.backend.truncate(slot, length)

    def reset(self) -> None:
        self.backend.reset()

    def forward(self, runs: Mapping[int, Sequence[int]]) -> dict[int, Logits]:
        with self.changed:
            while self.shut and not self.may_pass():
                self.waiting.set()
                self.changed.wait()
            self.waiting.clear()
        self.forwarded.append(set(runs))
        return self.backend.forward(runs)

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
