"""All errors with a message for the user, as one tree. Knows nothing of HTTP or of exit codes.

SoliloquyError                  its message is one sentence that a user can act on
├── InputError                  a value that cannot be used: names the field
│   └── UnknownCharactersError  text with characters that the model has never seen
├── DataError                   a text file or a prepared data set that cannot be used
├── CheckpointError             a checkpoint folder that cannot be used
├── DeviceError                 a device or number format that this machine does not have
├── SaveError                   a checkpoint that could not be written; what was there stays
├── DivergedError               a training run whose numbers are no longer finite
├── WorkerLostError             another process of a distributed training run has ended
├── EngineFailedError           an unexpected error of the generator
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
    """The value of `field` cannot be used; the message says why and what can be used instead."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field = field
        self.message = message


@dataclass(frozen=True)
class UnknownCharacter:
    """One character outside the vocabulary, its position in the text, and a text to use instead.

    `character` includes the combining marks that follow it; the replacement stands for all of it.
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
            found += f", {_code_points(first.character)}"  # the two look alike
            instead += f", {_code_points(first.replacement)}"
        super().__init__(
            field,
            f"the model has never seen {found} (position {first.position}{rest}); use {instead} instead",
        )
        self.unknown = unknown


def _code_points(text: str) -> str:
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
    """The generator failed by an unexpected error, which is in the log."""


class UnavailableError(SoliloquyError):
    """The service cannot take the request now; `retry_after` is in seconds."""

    def __init__(self, message: str, retry_after: int) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class QueueFullError(UnavailableError):
    """Every slot is taken and the queue is full."""


class DeadlineError(UnavailableError):
    """The work took longer than a request may take."""


class DrainingError(UnavailableError):
    """The server is shutting down and finishes only the requests that it has begun."""
