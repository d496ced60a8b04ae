"""Functions compiled for this CPU, and kept on disk where there is a folder for them."""

import hashlib
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba


def compile_and_call(function: Callable[..., Any], *arguments: Any) -> Callable[..., Any]:
    """`function`, compiled for arguments of these kinds; it has been called once with them.

    It is kept under a name that tells versions of this package apart: Numba itself sees changes of the function's
    own file only, not of those that it calls. Where nothing can be kept, or what was kept is broken, it is compiled
    anew.
    """
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    function.__qualname__ = f"{function.__name__}_{digest.hexdigest()[:16]}"
    try:
        compiled: Callable[..., Any] = numba.njit(nogil=True, cache=True, error_model="numpy")(function)
        compiled(*arguments)
    except (RuntimeError, OSError, EOFError, pickle.UnpicklingError):
        compiled = numba.njit(nogil=True, error_model="numpy")(function)
        compiled(*arguments)
    return compiled
