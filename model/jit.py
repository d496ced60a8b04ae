"""Compiles functions for this CPU with Numba, and keeps the machine code on disk where there is a folder for it.

Knows nothing of what the functions compute.
"""

import hashlib
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import llvmlite.binding
import numba
from numba.core import config
from numba.extending import register_jitable

CompiledFunction = TypeVar("CompiledFunction", bound=Callable[..., Any])

# Every file that compiled code is made of, relative to this one's folder. A test holds that none is missing.
SOURCES = ("jit.py", "arithmetic.py", "backends/cpu/*.py", "sampling/*.py", "analysis/fuse_filter.py")

_compiled: dict[Callable[..., Any], Callable[..., Any]] = {}


def kernel_jit(
    forceinline: bool = False, allocates: bool = False
) -> Callable[[CompiledFunction], CompiledFunction]:
    """Return a decorator for functions that only compiled functions call.

    Python calls them as what they are, uncompiled: Numba would spend a fifth of its time on what lets Python call
    compiled code. And it would compile them once more for each constant that they are called with.

    Args:
        forceinline: spares the call: Numba passes arrays as structures of some ten fields.
        allocates: whether the function makes arrays. If not, Numba's reference counts are off: an atomic
            instruction for each view of an array took three quarters of the time of the work on 64 numbers.
    """
    register: Any = register_jitable
    decorate: Callable[[CompiledFunction], CompiledFunction] = register(
        nogil=True, error_model="numpy", _nrt=allocates, forceinline=forceinline
    )
    return decorate


def compile_and_call(function: Callable[..., Any], *arguments: Any) -> Callable[..., Any]:
    """Return `function` compiled for the types of these arguments, after one call with them.

    The machine code is kept on disk under a name that contains a digest of `SOURCES`: Numba itself sees changes of
    the function's own file only, not of those that it calls. Where nothing can be kept, or what was kept is broken,
    the function is compiled anew. A process compiles or loads each function once: Numba never frees the megabyte
    that loading one takes.
    """
    try:
        if function not in _compiled:
            function.__qualname__ = f"{function.__name__}_{_source_digest()}"
            _compiled[function] = _njit(function, cache=True)
        _compiled[function](*arguments)
    except (RuntimeError, OSError, EOFError, pickle.UnpicklingError):
        _compiled[function] = _njit(function, cache=False)
        _compiled[function](*arguments)
    return _compiled[function]


def cache_folder(function: Callable[..., Any]) -> Path | None:
    """Return the folder that keeps the machine code of a function from `compile_and_call`; None if none does."""
    compiled: Any = function
    path = compiled.stats.cache_path
    return None if path is None else Path(path)


def target_identity() -> tuple[str, ...]:
    """Return what tells this machine's CPU, the settings of the compiler, and the compiled code from others."""
    settings: Any = config
    cpu = llvmlite.binding.get_host_cpu_name()
    features = llvmlite.binding.get_host_cpu_features().flatten()
    return (cpu, features, str(settings.CPU_NAME), str(settings.CPU_FEATURES), _source_digest())


def _source_digest() -> str:
    """Return the first 16 hex digits of the SHA-256 of all `SOURCES`."""
    digest = hashlib.sha256()
    for pattern in SOURCES:
        for path in sorted(Path(__file__).parent.glob(pattern)):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _njit(function: Callable[..., Any], cache: bool) -> Callable[..., Any]:
    dispatcher: Callable[..., Any] = numba.njit(nogil=True, cache=cache, error_model="numpy")(function)
    return dispatcher


def target_has_feature(feature: str) -> bool:
    """Return whether code is compiled for a CPU with this feature.

    That CPU may be another than this machine's: `NUMBA_CPU_NAME` and `NUMBA_CPU_FEATURES` name one.
    """
    settings: Any = config
    if settings.CPU_FEATURES is not None:
        return f"+{feature}" in settings.CPU_FEATURES.split(",")
    if settings.CPU_NAME not in (None, llvmlite.binding.get_host_cpu_name()) or not settings.ENABLE_AVX:
        return False
    return bool(llvmlite.binding.get_host_cpu_features().get(feature))
