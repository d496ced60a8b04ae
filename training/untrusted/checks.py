"""What all readers of untrusted files share: the error for a refusal, limits, and checks of types.

Nothing here depends on what the files are for.
"""

import struct
import zipfile
from typing import Any

MAX_FILE_BYTES = 1 << 36
MAX_SHOWN_CHARACTERS = 80  # of a text from the file, in a message

# What malformed opcodes, arguments and archives raise in code that does not expect them.
DAMAGE_ERRORS = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    NotImplementedError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
    zipfile.BadZipFile,
)


class UnsafeError(Exception):
    """The file asks for something that is refused to untrusted files; the message says for what."""


def require_type(expected: type[Any], value: Any) -> Any:
    """The value, whose type is exactly `expected`.

    Raises:
        TypeError: it is not.
    """
    if type(value) is not expected:
        raise TypeError(f"a {type(value).__name__} where a {expected.__name__} should be")
    return value


def require_whole_numbers(values: object) -> tuple[int, ...]:
    """The numbers of a tuple or list, each from 0 up to what PyTorch can count.

    Raises:
        TypeError: there is something else.
    """
    if not isinstance(values, tuple | list):
        raise TypeError("a tensor's shape is not of whole numbers")
    for value in values:
        if type(value) is not int or not 0 <= value < 1 << 62:
            raise TypeError("a tensor's shape is not of whole numbers")
    return tuple(values)


def shown(value: object) -> str:
    """A value from the file as a message shows it, cut if it is long."""
    text = str(value)
    return text if len(text) <= MAX_SHOWN_CHARACTERS else f"{text[:MAX_SHOWN_CHARACTERS]}…"
