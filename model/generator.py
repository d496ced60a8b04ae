"""Streams in slots: every step gives each of them its next character. Knows nothing of threads or of HTTP."""

from collections.abc import Collection, Iterator

from model.backend import Backend, EagerBackend
from model.checkpoint import Checkpoint
from model.device import Numerics
from model.sampling import Logits
from model.stream import Piece, Stream


class Generator:
    """Owns a backend's slots. Streams join and leave between steps; none changes another's text."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self._free = list(range(backend.slots))
        self._slots: dict[Stream, int] = {}

    @property
    def free_slots(self) -> int:
        """How many streams can be added."""
        return len(self._free)

    def add(self, stream: Stream) -> Piece:
        """Give the stream a slot, read its prompt, and write its first character.

        A prompt longer than `block_size` is cut to its end, as in nanoGPT.

        Raises:
            IndexError: no slot is free.
        """
        slot = self._free.pop(0)
        self._slots[stream] = slot
        prompt = stream.context(self.backend.config.block_size)
        return self._accept(stream, self.backend.prefill(slot, prompt))

    def step(self, streams: Collection[Stream]) -> Iterator[tuple[Stream, Piece]]:
        """Write one more character of each of these streams; one that ends leaves its slot."""
        full = [stream for stream in streams if self._is_full(stream)]
        rolling = {self._slots[s]: s for s in streams if s not in full}
        logits = self.backend.decode({slot: s.written[-1] for slot, s in rolling.items()})
        for slot, stream in rolling.items():
            yield stream, self._accept(stream, logits[slot])
        for stream in full:
            half = stream.context(self.backend.config.block_size // 2)
            yield stream, self._accept(stream, self.backend.prefill(self._slots[stream], half))

    def remove(self, stream: Stream) -> None:
        """Free the stream's slot, if it still has one."""
        slot = self._slots.pop(stream, None)
        if slot is not None:
            self._free.append(slot)
            self._free.sort()  # low slots first: streams share as few groups as they can

    def write(self, stream: Stream) -> Iterator[Piece]:
        """The whole of one stream, piece by piece."""
        try:
            piece = self.add(stream)
            yield piece
            while piece.finish_reason is None:
                [(_, piece)] = self.step([stream])
                yield piece
        finally:
            self.remove(stream)

    def _is_full(self, stream: Stream) -> bool:
        """Learned positions cannot roll: a full window keeps its newer half and begins again."""
        config = self.backend.config
        return config.positions == "learned" and self.backend.length(self._slots[stream]) == config.block_size

    def _accept(self, stream: Stream, logits: Logits) -> Piece:
        piece = stream.accept(logits)
        if piece.finish_reason is not None:
            self.remove(stream)
        return piece


def load_generator(checkpoint: Checkpoint, numerics: Numerics, slots: int, compile: bool = False) -> Generator:
    """A generator for this checkpoint's weights."""
    return Generator(EagerBackend(checkpoint.network(numerics.dtype), numerics, slots, compile))
