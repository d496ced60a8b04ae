"""The plain values that a pickle may make by a function call: dictionaries, sets, bytes, NumPy numbers, paths."""

import re
from typing import Any

import numpy as np

from training.untrusted.checks import UnsafeError, require_type
from training.untrusted.pickle_machine import Function, NumpyType, make_dict, make_set

NUMPY_NUMBER = re.compile("[biuf][1248]")


def _ordered_dict(pairs: object = ()) -> dict[Any, Any]:
    """What `collections.OrderedDict` makes of a list of pairs."""
    flat: list[Any] = []
    for pair in require_type(list, pairs or []):
        if type(pair) not in (list, tuple) or len(pair) != 2:
            raise TypeError("an item of a dictionary is not a pair")
        flat += pair
    return make_dict(flat)


def _bytes_of_text(text: object, encoding: object) -> bytes:
    """Bytes, which protocol 2 writes as a Latin-1 text to encode."""
    if not isinstance(text, str) or encoding != "latin1":
        raise TypeError("bytes that are not written as Latin-1")
    return text.encode("latin1")


def _numpy_type(name: object, *_: object) -> NumpyType:
    """What `numpy.dtype` returns for the name of a number's type; the other arguments do not change the value."""
    if not isinstance(name, str) or not NUMPY_NUMBER.fullmatch(name):
        raise UnsafeError("it holds a NumPy value that is not a number")
    return NumpyType(np.dtype(name))


def _numpy_number(kind: object, content: object) -> object:
    """A NumPy number as a Python one."""
    if not isinstance(kind, NumpyType) or not isinstance(content, bytes):
        raise TypeError("a NumPy number without its type or its bytes")
    [value] = np.frombuffer(content, kind.dtype)
    return value.item()


def _path(*parts: object) -> str:
    """A path as a text."""
    return "/".join(require_type(str, part) for part in parts)


PLAIN_NAMES: dict[str, object] = {
    "collections.OrderedDict": Function(_ordered_dict),
    "builtins.set": Function(make_set),
    "builtins.frozenset": Function(make_set),
    "__builtin__.set": Function(make_set),
    "__builtin__.frozenset": Function(make_set),
    "_codecs.encode": Function(_bytes_of_text),
    "numpy.dtype": Function(_numpy_type),
    "numpy.core.multiarray.scalar": Function(_numpy_number),
    "numpy._core.multiarray.scalar": Function(_numpy_number),
    "pathlib.Path": Function(_path),
    "pathlib.PosixPath": Function(_path),
    "pathlib.WindowsPath": Function(_path),
    "pathlib._local.PosixPath": Function(_path),
    "pathlib._local.WindowsPath": Function(_path),
}
