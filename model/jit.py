"""Functions compiled for this CPU, and kept on disk where there is a folder for them."""

import hashlib
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import llvmlite.binding
import numba
from numba.core import config

Function = TypeVar("Function", bound=Callable[..., Any])

SOURCES = ("jit.py", "backends/cpu/*.py", "sampling/*.py", "analysis/fuse_filter.py")  # of all compiled code

_compiled: dict[Callable[..., Any], Callable[..., Any]] = {}


def inner(forceinline: bool = False) -> Callable[[Function], Function]:
    """Compile a function that is called within a step, where it is called.

    By default Numba counts the references to each view of an array, by atomic instructions: three quarters of the
    time of what is done with a head's 64 numbers.
    """
    njit: Any = numba.njit
    decorate: Callable[[Function], Function] = njit(
        nogil=True, error_model="numpy", _nrt=False, forceinline=forceinline
    )
    return decorate


def compile_and_call(function: Callable[..., Any], *arguments: Any) -> Callable[..., Any]:
    """`function`, compiled for arguments of these kinds; it has been called once with them.

    It is kept on disk under a name that tells versions of `SOURCES` apart: Numba itself sees changes of the
    function's own file only, not of those that it calls. Where nothing can be kept, or what was kept is broken, it
    is compiled anew. The process keeps it for ever, since Numba never frees a megabyte of what loading it takes.
    """
    try:
        if function not in _compiled:
            function.__qualname__ = f"{function.__name__}_{_version()}"
            _compiled[function] = _dispatcher(function, cache=True)
        _compiled[function](*arguments)
    except (RuntimeError, OSError, EOFError, pickle.UnpicklingError):
        _compiled[function] = _dispatcher(function, cache=False)
        _compiled[function](*arguments)
    return _compiled[function]


def _version() -> str:
    """Sixteen hex digits, of all files that compiled code is made of."""
    digest = hashlib.sha256()
    for pattern in SOURCES:
        for path in sorted(Path(__file__).parent.glob(pattern)):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _dispatcher(function: Callable[..., Any], cache: bool) -> Callable[..., Any]:
    dispatcher: Callable[..., Any] = numba.njit(nogil=True, cache=cache, error_model="numpy")(function)
    return dispatcher


def compiles_for(feature: str) -> bool:
    """Whether code is compiled for a CPU with this feature; Numba's settings may name another CPU than this one."""
    settings: Any = config
    if settings.CPU_FEATURES is not None:
        return f"+{feature}" in settings.CPU_FEATURES.split(",")
    if settings.CPU_NAME not in (None, llvmlite.binding.get_host_cpu_name()) or not settings.ENABLE_AVX:
        return False
    return bool(llvmlite.binding.get_host_cpu_features().get(feature))
