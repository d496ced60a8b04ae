"""Everything Soliloquy refuses or fails at, as one tree. Knows nothing of HTTP or of exit codes.

SoliloquyError                  one sentence that a user can act on
├── InputError                  a value that cannot be used: names the field
│   └── UnknownCharactersError  text with characters that the model has never seen
├── DataError                   a text file or a prepared data set that cannot be used
├── CheckpointError             a checkpoint folder that cannot be used
├── DeviceError                 a device or number format that this machine does not have
├── SaveError                   a checkpoint that could not be written; what was there stays
├── DivergedError               a training run whose numbers are no longer finite
├── WorkerLostError             another process of a distributed training run has ended
├── EngineFailedError           the generator met an error that it does not know
└── UnavailableError            nothing wrong with the request: try again later
    ├── QueueFullError
    ├── DeadlineError
    └── DrainingError
"""

import unicodedata
from dataclasses import dataclass


class SoliloquyError(Exception):
    """Base of all errors with a message meant for the user."""


class InputError(SoliloquyError):
    """`field` had a value that cannot be used; the message says why and what would do."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field = field
        self.message = message


@dataclass(frozen=True)
class UnknownCharacter:
    """One character outside the vocabulary, its place in the text, and text to use instead.

    `character` has the combining marks that follow it too: the replacement is for all of it.
    """

    character: str
    position: int
    replacement: str


class UnknownCharactersError(InputError):
    """`field` holds characters that the model has never seen."""

    def __init__(self, field: str, unknown: list[UnknownCharacter]) -> None:
        first = unknown[0]
        rest = f", and {len(unknown) - 1} more" if len(unknown) > 1 else ""
        found = repr(first.character)
        instead = repr(first.replacement)
        if unicodedata.normalize("NFC", first.character) == unicodedata.normalize("NFC", first.replacement):
            found += f", {_numbers(first.character)}"  # the two look alike
            instead += f", {_numbers(first.replacement)}"
        super().__init__(
            field,
            f"the model has never seen {found} (position {first.position}{rest}); use {instead} instead",
        )
        self.unknown = unknown


def _numbers(text: str) -> str:
    return " ".join(f"U+{ord(character):04X}" for character in text)


class DataError(SoliloquyError):
    """A text file or a prepared data set is missing, malformed or too small."""


class CheckpointError(SoliloquyError):
    """A checkpoint folder is missing, truncated, mismatched or unsafe."""


class DeviceError(SoliloquyError):
    """The device or number format asked for is not available on this machine."""


class SaveError(SoliloquyError):
    """A checkpoint could not be written; what was saved before is still there."""


class DivergedError(SoliloquyError):
    """A training run's loss or gradient is no longer finite."""


class WorkerLostError(SoliloquyError):
    """Another process of a distributed training run has ended."""


class EngineFailedError(SoliloquyError):
    """The generator met an error that it does not know; the log has it."""


class UnavailableError(SoliloquyError):
    """The service cannot take the request now; `retry_after` is in seconds."""

    def __init__(self, message: str, retry_after: int) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class QueueFullError(UnavailableError):
    """Every slot is writing and the queue is at its bound."""


class DeadlineError(UnavailableError):
    """The work took longer than a request may have it."""


class DrainingError(UnavailableError):
    """The server is shutting down and finishes only what it has begun."""
