"""Ordinary tensors over storages that were read: every size is checked against the bytes that the storage has.

The functions have the arguments that PyTorch's own functions of these names are pickled with.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from training.untrusted.checks import MAX_FILE_BYTES, UnsafeError, require_whole_numbers
from training.untrusted.pickle_machine import Function
from training.untrusted.plain_values import PLAIN_NAMES

MAX_DIMENSIONS = 16

STORAGES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
NEWER_TYPES = (  # without a storage class
    torch.uint16,
    torch.uint32,
    torch.uint64,
    torch.float8_e4m3fn,
    torch.float8_e4m3fnuz,
    torch.float8_e5m2,
    torch.float8_e5m2fnuz,
)


@dataclass(frozen=True)
class StorageType:
    """Stands for one of PyTorch's storage classes."""

    dtype: torch.dtype


@dataclass(frozen=True)
class Storage:
    """The numbers that one or more tensors are views of."""

    numbers: torch.UntypedStorage
    dtype: torch.dtype


def _tensor(
    storage: object,
    offset: object,
    size: object,
    stride: object,
    _requires_grad: object,
    _hooks: object,
    metadata: object = None,
) -> Tensor:
    """Stands for `torch._utils._rebuild_tensor_v2`: a tensor of the storage's type."""
    if not isinstance(storage, Storage):
        raise TypeError("a tensor without a storage")
    return _view(storage, storage.dtype, offset, size, stride, metadata)


def _typed_tensor(
    storage: object,
    offset: object,
    size: object,
    stride: object,
    _requires_grad: object,
    _hooks: object,
    dtype: object,
    metadata: object = None,
) -> Tensor:
    """Stands for `torch._utils._rebuild_tensor_v3`: a tensor of a type without a storage class of its own."""
    if not isinstance(storage, Storage) or not isinstance(dtype, torch.dtype):
        raise TypeError("a tensor without a storage or a type")
    if dtype not in (*STORAGES.values(), *NEWER_TYPES):
        raise UnsafeError(f"it holds a tensor of {dtype}; only ordinary tensors are read")
    return _view(storage, dtype, offset, size, stride, metadata)


def _view(
    storage: Storage, dtype: torch.dtype, offset: object, size: object, stride: object, metadata: object
) -> Tensor:
    """A view of the storage, once it is known that all its numbers lie within it.

    The view may not have more numbers than the storage, so that strides of 0 cannot multiply them.
    """
    sizes = require_whole_numbers(size)
    strides = require_whole_numbers(stride)
    [start] = require_whole_numbers((offset,))
    capacity = storage.numbers.nbytes() // dtype.itemsize
    last = start + sum((length - 1) * step for length, step in zip(sizes, strides, strict=True))
    count = math.prod(sizes)
    if len(sizes) > MAX_DIMENSIONS or max(sizes, default=0) > MAX_FILE_BYTES:
        raise UnsafeError(f"it holds a tensor of {len(sizes)} dimensions, the longest of {max(sizes):,}")
    if count and (count > capacity or last >= capacity):
        raise UnsafeError(f"a tensor of {count:,} numbers is not inside its storage of {capacity:,}")
    if metadata:
        raise UnsafeError("it holds a tensor of conjugated or negated numbers; only ordinary tensors are read")
    view = torch.empty(0, dtype=dtype)
    return view.set_(storage.numbers, start if count else 0, sizes, strides)


def _parameter(data: object, _requires_grad: object, _hooks: object, _state: object = None) -> Tensor:
    if not isinstance(data, Tensor):
        raise TypeError("a parameter without a tensor")
    return data


def _shape(sizes: object) -> tuple[int, ...]:
    return require_whole_numbers(sizes)


def _device(kind: object, index: object = None) -> str:
    if not isinstance(kind, str):
        raise TypeError("a device without a name")
    return kind if index is None else f"{kind}:{require_whole_numbers((index,))[0]}"


TORCH_NAMES = PLAIN_NAMES | {
    "torch._utils._rebuild_tensor_v2": Function(_tensor),
    "torch._utils._rebuild_tensor_v3": Function(_typed_tensor),
    "torch._utils._rebuild_parameter": Function(_parameter),
    "torch._utils._rebuild_parameter_with_state": Function(_parameter),
    "torch.storage.UntypedStorage": StorageType(torch.uint8),
    "torch.Size": Function(_shape),
    "torch.device": Function(_device),
}
TORCH_NAMES |= {f"torch.{name}": StorageType(dtype) for name, dtype in STORAGES.items()}
TORCH_NAMES |= {f"torch.{name}": value for name, value in vars(torch).items() if isinstance(value, torch.dtype)}
