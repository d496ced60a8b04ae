"""A network's weights as NumPy arrays: their file (safetensors), and their conversion to PyTorch's tensors.

NumPy itself has no bfloat16; here it is that of `ml_dtypes`. PyTorch is imported only where tensors are asked for:
that takes seconds and memory, which a server on a CPU can do without.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, TensorSpec, deserialize, serialize

if TYPE_CHECKING:
    from torch import Tensor, dtype

StoredWeights = dict[str, NDArray[Any]]

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
TYPES = {
    "BF16": BFLOAT16,
    "F16": np.dtype(np.float16),
    "F32": np.dtype(np.float32),
    "F64": np.dtype(np.float64),
}  # by safetensors' names
TYPE_NAMES = tuple(dtype.name for dtype in TYPES.values())  # NumPy's, and PyTorch's


def load_weights(stored: bytes) -> StoredWeights:
    """Return the arrays of a safetensors file.

    Raises:
        SafetensorError: it is damaged, or has numbers of a type that no weights have.
    """
    weights: StoredWeights = {}
    for name, tensor in deserialize(stored):  # type: ignore[no-untyped-call]
        type_name = tensor["dtype"]
        if type_name not in TYPES:
            raise SafetensorError(f"{name} has numbers of the type {type_name}, not one of {', '.join(TYPES)}")
        weights[name] = np.frombuffer(tensor["data"], TYPES[type_name]).reshape(tensor["shape"])
    return weights


def dump_weights(weights: StoredWeights) -> bytes:
    """Return the bytes of a safetensors file with these arrays."""
    contiguous = {name: np.ascontiguousarray(array) for name, array in weights.items()}
    specs: dict[str, TensorSpec] = {}
    for name, array in contiguous.items():
        specs[name] = TensorSpec(
            dtype=array.dtype.name, shape=array.shape, data_ptr=array.ctypes.data, data_len=array.nbytes
        )
    return bytes(serialize(specs))


def from_tensors(tensors: "Mapping[str, Tensor]") -> StoredWeights:
    """Return PyTorch's tensors as arrays; those on the CPU share their memory with them."""
    import torch  # noqa: PLC0415 - see above

    weights: StoredWeights = {}
    for name, given in tensors.items():
        tensor = given.detach().cpu().contiguous()
        if tensor.dtype == torch.bfloat16:
            weights[name] = tensor.view(torch.int16).numpy().view(BFLOAT16)
        else:
            weights[name] = tensor.numpy()
    return weights


def to_tensors(weights: StoredWeights, dtype: "dtype") -> "dict[str, Tensor]":
    """Return the arrays as PyTorch's tensors of `dtype` on the CPU; they share memory where they can."""
    import torch  # noqa: PLC0415 - see above

    tensors: dict[str, Tensor] = {}
    for name, array in weights.items():
        if array.dtype == BFLOAT16:
            tensor = torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
        else:
            tensor = torch.from_numpy(array)
        tensors[name] = tensor.to(dtype)
    return tensors
