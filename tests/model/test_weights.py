"""Weights are read and written without PyTorch, and are what PyTorch's own reader makes of the file."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from model.weights import dump_weights, from_tensors, load_weights, to_tensors

TYPES = [torch.bfloat16, torch.float16, torch.float32, torch.float64]


def some_tensors(dtype: torch.dtype) -> dict[str, Tensor]:
    """Random numbers of many magnitudes in tensors of one to three axes, an empty and a transposed one."""
    torch.manual_seed(0)
    shapes = {"a": (3,), "b": (4, 5), "c": (2, 3, 4), "empty": (0, 7)}
    tensors = {name: (torch.randn(shape) * 10 ** torch.randn(shape)).to(dtype) for name, shape in shapes.items()}
    return tensors | {"transposed": tensors["b"].T}


@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_files_are_those_of_pytorch(dtype: torch.dtype) -> None:
    tensors = some_tensors(dtype)
    stored = dump_weights(from_tensors(tensors))
    by_pytorch = load(stored)
    read = to_tensors(load_weights(save({name: tensor.contiguous() for name, tensor in tensors.items()})), dtype)
    assert by_pytorch.keys() == read.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert torch.equal(by_pytorch[name], tensor)
        assert torch.equal(read[name], tensor)
        assert by_pytorch[name].dtype == read[name].dtype == dtype


@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_numbers_are_converted_as_pytorch_converts_them(dtype: torch.dtype) -> None:
    tensors = some_tensors(dtype)
    weights = from_tensors(tensors)
    for name, tensor in to_tensors(weights, torch.float32).items():
        assert torch.equal(tensor, tensors[name].float())
        assert np.array_equal(weights[name].astype(np.float32), tensor.numpy())


def test_other_numbers_are_refused_by_their_type() -> None:
    with pytest.raises(SafetensorError, match="ids has numbers of the type I64, not one of BF16, F16, F32, F64"):
        load_weights(save({"ids": torch.arange(3)}))


WITHOUT_PYTORCH = """
import sys
sys.modules["torch"] = None  # importing it is then an error
from model.sample import SampleSettings, sample
from model.verify import VerifySettings
sample(SampleSettings(num_samples=1, max_new_tokens=5, device="cpu"))
import app.main
"""
WITHOUT_COMPILER = """
import sys
from model.checkpoint import read_checkpoint
from pathlib import Path
read_checkpoint(Path("checkpoints/shakespeare-char")).network()
assert "torch" in sys.modules and "torch._dynamo" not in sys.modules
"""


@pytest.mark.parametrize("program", [WITHOUT_PYTORCH, WITHOUT_COMPILER])
def test_no_more_is_imported_than_is_used(program: str) -> None:
    """A server on a CPU imported PyTorch, 2 s, to read a file, and to learn the shapes of the weights its compiler,
    4 s, since that draws random numbers on the meta device.
    """
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
