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

_SHORT = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.int8: "int8"}


@dataclass(frozen=True)
class Numerics:
    """A device and the format of its arithmetic; the same seed gives the same text within one of these."""

    device: torch.device
    dtype: torch.dtype

    @property
    def name(self) -> str:
        """`cpu-int8`, `cpu-fp32`, `cuda-bf16`, …"""
        return f"{self.device.type}-{_SHORT[self.dtype]}"

    @property
    def quantised(self) -> bool:
        """Whether weights and activations are multiplied as 8-bit integers."""
        return self.dtype == torch.int8


def numerics_named(name: str) -> Numerics:
    """The numerics that call themselves so.

    Raises:
        DeviceError: there are none, or not on this machine.
    """
    device, _, short = name.partition("-")
    dtypes = {short: dtype for dtype, short in _SHORT.items()}
    if device not in get_args(DeviceName) or device == "auto" or short not in dtypes:
        raise DeviceError(f"numerics: {name!r} is not known; they are called cpu-int8, cuda-bf16, …")
    return choose_numerics(cast(DeviceName, device), cast(GenerationDtypeName, str(dtypes[short])[6:]))


def choose_device(name: DeviceName) -> torch.device:
    """The named device; `auto` is CUDA where there is one, then MPS, then the CPU.

    Raises:
        DeviceError: the device is not available here.
    """
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        name = "cuda" if available["cuda"] else "mps" if available["mps"] else "cpu"
    if not available[name]:
        usable = ", ".join(device for device, here in available.items() if here)
        raise DeviceError(f"device: {name!r} is not available on this machine; use auto or {usable}")
    return torch.device(name)


def choose_numerics(device_name: DeviceName, dtype_name: GenerationDtypeName) -> Numerics:
    """Device and format for generation; `auto` is int8 on a CPU, bf16 on a GPU that has it, fp32 elsewhere.

    Raises:
        DeviceError: the device is not available here, or cannot multiply in this format.
    """
    device = choose_device("cpu" if (device_name, dtype_name) == ("auto", "int8") else device_name)
    if dtype_name == "int8" and device.type != "cpu":
        raise DeviceError(f"dtype: int8 is for the CPU, not {device.type}; use another, or device cpu")
    if dtype_name == "auto":
        half = device.type == "cuda" and torch.cuda.is_bf16_supported()
        return Numerics(device, torch.int8 if device.type == "cpu" else torch.bfloat16 if half else torch.float32)
    return Numerics(device, getattr(torch, dtype_name))


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
    """Cores that threads may keep busy: those that PyTorch would use, fewer where a container is given less time.

    Beyond its quota all of a container's threads stand still together, those too that others wait for.

    Args:
        quota: of this process's own control group, version 2: microseconds ("max": all), and in how many.
    """
    try:
        given, period = quota.read_text().split()
        return max(1, min(torch.get_num_threads(), math.floor(float(given) / float(period))))
    except (OSError, ValueError):  # no such file; or "max"
        return torch.get_num_threads()


def keep_freed_memory() -> None:
    """Ask glibc to keep the memory of freed tensors for the next ones; nothing on other systems.

    By default every large tensor is mapped and unmapped anew and each of its pages faults again: a fifth of a
    training step on a CPU. For programs that train; for the life of the process.
    """
    for option, size in ((-3, 1 << 30), (-1, (1 << 31) - 1), (-2, 1 << 28)):  # MMAP_THRESHOLD, TRIM…, TOP_PAD
        _call_glibc("mallopt", option, size)


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
