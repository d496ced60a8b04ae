"""Which device computes, and in which number format. Knows nothing of networks."""

import ctypes
import math
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast, get_args

import psutil

from model.errors import DeviceError

if TYPE_CHECKING:
    import torch

DeviceName = Literal["auto", "cpu", "cuda", "mps"]
DtypeName = Literal["auto", "float32", "bfloat16"]
GenerationDtypeName = Literal["auto", "float32", "bfloat16", "int8"]

_SHORT_NAMES = {"float32": "fp32", "bfloat16": "bf16", "int8": "int8"}
# What programs that compute on a GPU load first: CUDA's driver under Linux and Windows, ROCm's device.
_GPU_DRIVERS = ("libcuda.so.1", "nvcuda.dll")
_ROCM_DEVICE = Path("/dev/kfd")

# Options of glibc's mallopt.
M_TRIM_THRESHOLD = -1
M_TOP_PAD = -2
M_MMAP_THRESHOLD = -3


@dataclass(frozen=True)
class Numerics:
    """A device and the format of its arithmetic; the same seed gives the same text within one of these.

    Attributes:
        device: by PyTorch's name: `cpu`, `cuda`, `cuda:1`, `mps`.
        dtype: by PyTorch's name: `float32`, `bfloat16` or `int8`.
    """

    device: str
    dtype: str

    @property
    def name(self) -> str:
        """`cpu-int8`, `cpu-fp32`, `cuda-bf16`, …"""
        return f"{self.device_type}-{_SHORT_NAMES[self.dtype]}"

    @property
    def device_type(self) -> str:
        """The device's kind, without its number."""
        return self.device.partition(":")[0]

    @property
    def quantised(self) -> bool:
        """Whether weights and activations are multiplied as 8-bit integers."""
        return self.dtype == "int8"

    @property
    def torch_device(self) -> "torch.device":
        """The device as PyTorch has it."""
        import torch  # noqa: PLC0415 - not on a CPU; see `model.weights`

        return torch.device(self.device)

    @property
    def torch_dtype(self) -> "torch.dtype":
        """The format as PyTorch has it."""
        import torch  # noqa: PLC0415

        dtype: torch.dtype = getattr(torch, self.dtype)
        return dtype


def numerics_named(name: str) -> Numerics:
    """The numerics of this `name`.

    Raises:
        DeviceError: there are none, or not on this machine.
    """
    device, _, short_name = name.partition("-")
    dtypes = {short: dtype for dtype, short in _SHORT_NAMES.items()}
    if device not in get_args(DeviceName) or device == "auto" or short_name not in dtypes:
        raise DeviceError(f"numerics: {name!r} is not known; they are called cpu-int8, cuda-bf16, …")
    return choose_numerics(cast(DeviceName, device), cast(GenerationDtypeName, dtypes[short_name]))


def choose_device(name: DeviceName) -> str:
    """The named device; `auto` is CUDA where there is one, then MPS, then the CPU.

    Raises:
        DeviceError: the device is not available here.
    """
    if name == "cpu":
        return name
    available = [*_available_gpus(), "cpu"]
    if name == "auto":
        return available[0]
    if name not in available:
        usable = ", ".join(available)
        raise DeviceError(f"device: {name!r} is not available on this machine; use auto or {usable}")
    return name


def choose_numerics(device_name: DeviceName, dtype_name: GenerationDtypeName) -> Numerics:
    """Device and format for generation; `auto` is int8 on a CPU, bf16 on a GPU that has it, fp32 elsewhere.

    Raises:
        DeviceError: the device is not available here, or cannot multiply in this format.
    """
    if device_name == "auto" and dtype_name == "int8":
        device_name = "cpu"  # the only one that multiplies it
    device = choose_device(device_name)
    if dtype_name == "int8" and device != "cpu":
        raise DeviceError(f"dtype: int8 is for the CPU, not {device}; use another, or device cpu")
    if dtype_name != "auto":
        return Numerics(device, dtype_name)
    if device == "cpu":
        return Numerics(device, "int8")
    if device == "cuda" and _cuda_has_bf16():
        return Numerics(device, "bfloat16")
    return Numerics(device, "float32")


def _available_gpus() -> list[str]:
    """The kinds of GPU that PyTorch can use here; without a driver for any it is not asked, nor imported."""
    if not _has_gpu_driver():
        return []
    import torch  # noqa: PLC0415

    available: list[str] = []
    if torch.cuda.is_available():
        available.append("cuda")
    if torch.backends.mps.is_available():
        available.append("mps")
    return available


def _has_gpu_driver() -> bool:
    """Whether there may be a GPU: macOS has its driver always."""
    if sys.platform == "darwin" or _ROCM_DEVICE.exists():
        return True
    for library in _GPU_DRIVERS:
        try:
            ctypes.CDLL(library)
        except OSError:
            continue
        return True
    return False


def _cuda_has_bf16() -> bool:
    import torch  # noqa: PLC0415

    return bool(torch.cuda.is_bf16_supported())


def usable_cores(quota: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """Cores that threads may keep busy: as many as PyTorch would use, fewer where a container has a CPU quota.

    A container that has used up its quota is stopped with all of its threads, those too that others wait for. Two
    threads on one core's two hyper-threads gain nothing, since both wait for the same multipliers.

    Args:
        quota: the `cpu.max` file of this process's own control group, version 2: microseconds of CPU time ("max":
            without limit), and the period in which they may be used.
    """
    cores = _cores()
    try:
        allowed, period = quota.read_text().split()
        return max(1, min(cores, math.floor(float(allowed) / float(period))))
    except (OSError, ValueError):  # no such file; or "max"
        return cores


def _cores() -> int:
    """Cores without their hyper-threads that this process may run on, or as many as `OMP_NUM_THREADS` says."""
    limit = os.environ.get("OMP_NUM_THREADS", "")
    if limit.isascii() and limit.isdigit() and int(limit) > 0:
        return int(limit)
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(usable, psutil.cpu_count(logical=False) or usable)


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
