"""Which device computes, and in which number format. Knows nothing of networks."""

import ctypes
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast, get_args

import torch

from model.errors import DeviceError

DeviceName = Literal["auto", "cpu", "cuda", "mps"]
DtypeName = Literal["auto", "float32", "bfloat16"]
GenerationDtypeName = Literal["auto", "float32", "bfloat16", "int8"]

_SHORT_NAMES = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.int8: "int8"}


# Options of glibc's mallopt.
M_TRIM_THRESHOLD = -1
M_TOP_PAD = -2
M_MMAP_THRESHOLD = -3


@dataclass(frozen=True)
class Numerics:
    """A device and the format of its arithmetic; the same seed gives the same text within one of these."""

    device: torch.device
    dtype: torch.dtype

    @property
    def name(self) -> str:
        """`cpu-int8`, `cpu-fp32`, `cuda-bf16`, …"""
        return f"{self.device.type}-{_SHORT_NAMES[self.dtype]}"

    @property
    def quantised(self) -> bool:
        """Whether weights and activations are multiplied as 8-bit integers."""
        return self.dtype == torch.int8


def numerics_named(name: str) -> Numerics:
    """The numerics of this `name`.

    Raises:
        DeviceError: there are none, or not on this machine.
    """
    device, _, short_name = name.partition("-")
    dtypes = {short: dtype for dtype, short in _SHORT_NAMES.items()}
    if device not in get_args(DeviceName) or device == "auto" or short_name not in dtypes:
        raise DeviceError(f"numerics: {name!r} is not known; they are called cpu-int8, cuda-bf16, …")
    dtype_name = str(dtypes[short_name]).removeprefix("torch.")
    return choose_numerics(cast(DeviceName, device), cast(GenerationDtypeName, dtype_name))


def choose_device(name: DeviceName) -> torch.device:
    """The named device; `auto` is CUDA where there is one, then MPS, then the CPU.

    Raises:
        DeviceError: the device is not available here.
    """
    available: list[DeviceName] = []
    if torch.cuda.is_available():
        available.append("cuda")
    if torch.backends.mps.is_available():
        available.append("mps")
    available.append("cpu")
    if name == "auto":
        name = available[0]
    if name not in available:
        usable = ", ".join(available)
        raise DeviceError(f"device: {name!r} is not available on this machine; use auto or {usable}")
    return torch.device(name)


def choose_numerics(device_name: DeviceName, dtype_name: GenerationDtypeName) -> Numerics:
    """Device and format for generation; `auto` is int8 on a CPU, bf16 on a GPU that has it, fp32 elsewhere.

    Raises:
        DeviceError: the device is not available here, or cannot multiply in this format.
    """
    if device_name == "auto" and dtype_name == "int8":
        device_name = "cpu"  # the only one that multiplies it
    device = choose_device(device_name)
    if dtype_name == "int8" and device.type != "cpu":
        raise DeviceError(f"dtype: int8 is for the CPU, not {device.type}; use another, or device cpu")
    if dtype_name != "auto":
        return Numerics(device, getattr(torch, dtype_name))
    if device.type == "cpu":
        return Numerics(device, torch.int8)
    if device.type == "cuda" and torch.cuda.is_bf16_supported():
        return Numerics(device, torch.bfloat16)
    return Numerics(device, torch.float32)


def training_dtype(device: torch.device, dtype_name: DtypeName) -> torch.dtype:
    """Format of training's matrix products; `auto` is bf16 where the hardware multiplies it."""
    if dtype_name != "auto":
        dtype: torch.dtype = getattr(torch, dtype_name)
        return dtype
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    fast = device.type == "cpu" and bool(torch.cpu.get_capabilities().get("avx512_bf16"))
    return torch.bfloat16 if fast else torch.float32


def usable_cores(quota: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """Cores that threads may keep busy: as many as PyTorch would use, fewer where a container has a CPU quota.

    A container that has used up its quota is stopped with all of its threads, those too that others wait for.

    Args:
        quota: the `cpu.max` file of this process's own control group, version 2: microseconds of CPU time ("max":
            without limit), and the period in which they may be used.
    """
    try:
        allowed, period = quota.read_text().split()
        return max(1, min(torch.get_num_threads(), math.floor(float(allowed) / float(period))))
    except (OSError, ValueError):  # no such file; or "max"
        return torch.get_num_threads()


def keep_freed_memory() -> None:
    """Ask glibc to keep the memory of freed tensors for the next ones; nothing on other systems.

    By default every large tensor is mapped and unmapped anew and each of its pages faults again: a fifth of a
    training step on a CPU. For programs that train; for the life of the process.
    """
    _call_glibc("mallopt", M_MMAP_THRESHOLD, 1 << 30)
    _call_glibc("mallopt", M_TRIM_THRESHOLD, (1 << 31) - 1)
    _call_glibc("mallopt", M_TOP_PAD, 1 << 28)


def give_back_memory() -> None:
    """Ask glibc to return freed memory to the system; nothing on other systems.

    By default it keeps what loading a model took, a tenth of a server's memory. For programs that serve.
    """
    _call_glibc("malloc_trim", 0)


def _call_glibc(name: str, *arguments: int) -> None:
    if sys.platform.startswith("linux"):
        function = getattr(ctypes.CDLL(None), name, None)  # musl has neither
        if function is not None:
            function(*arguments)
