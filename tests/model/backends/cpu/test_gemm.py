import os
import subprocess
import sys

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from model.backends.cpu import amx
from model.backends.cpu.gemm import OFFSET, multiply, pack
from model.backends.cpu.microkernel import COLUMNS, GROUP

# Prints sums of a product that has every kind of tile, of the largest magnitudes.
PROGRAM = """
import numpy as np
from model.cpu.dot import multiply, pack
from model.cpu.tile import has_vnni
random = np.random.default_rng(0)
x, matrix = (random.choice([-128, -127, 0, 1, 127], size=(n, 512)).astype(np.int8) for n in (7, 96))
out = np.zeros((7, 96), np.int32)
multiply(x, 7, pack(matrix), 6, 128, out, False)
print(has_vnni(), out.tobytes().hex())
"""


@settings(max_examples=60)
@given(rows=st.integers(1, 9), n=st.integers(1, 100), k=st.integers(1, 80), seed=st.integers(0, 2**32 - 1))
def test_a_product_is_exact(rows: int, n: int, k: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    x, matrix = (random.integers(-128, 128, size=(count, k)).astype(np.int8) for count in (rows, n))
    padded = np.zeros((rows, -(-k // GROUP) * GROUP), np.int8)
    padded[:, :k] = x
    columns = pack(matrix)
    out = np.zeros((rows, len(columns) * COLUMNS), np.int32)
    multiply(padded, rows, columns, len(columns), columns.shape[1], out, False)
    excess = OFFSET * padded.astype(np.int32).sum(1, keepdims=True)
    assert np.array_equal((out - excess)[:, :n], x.astype(np.int32) @ matrix.astype(np.int32).T)


@numba.njit(nogil=True)
def multiply_by_amx(
    x: NDArray[np.int8], rows: int, columns: NDArray[np.uint8], blocks: int, steps: int, out: NDArray[np.int32]
) -> None:
    amx.begin()
    multiply(x, rows, columns, blocks, steps, out, True)
    amx.end()


@pytest.mark.skipif(not amx.ask_for_amx(), reason="no AMX here")
@settings(max_examples=60)
@given(rows=st.integers(1, 80), blocks=st.integers(1, 5), tiles=st.integers(1, 4), seed=st.integers(0, 2**32 - 1))
def test_amx_finds_the_same_sums(rows: int, blocks: int, tiles: int, seed: int) -> None:
    """Also of columns that lie as values do in a cache: all blocks of a group beside each other."""
    random = np.random.default_rng(seed)
    x = random.integers(-128, 128, size=(-rows % amx.ROWS + rows, 64 * tiles)).astype(np.int8)
    columns = random.integers(0, 256, size=(blocks, 16 * tiles, 64)).astype(np.uint8)
    apart = np.ascontiguousarray(columns.swapaxes(0, 1)).swapaxes(0, 1)
    expected, *found = np.zeros((3, len(x), blocks * COLUMNS), np.int32)
    multiply(x, rows, columns, blocks, 16 * tiles, expected, False)
    for some, out in zip((columns, apart), found, strict=True):
        multiply_by_amx(x, rows, some, blocks, 16 * tiles, out)
        assert np.array_equal(out[:rows], expected[:rows])


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="names CPUs of another kind")
@pytest.mark.parametrize("cpu", ["haswell", "x86-64-v2"])
def test_an_older_cpu_finds_the_same_sums(cpu: str) -> None:
    def run(**environment: str) -> tuple[str, str]:
        command = [sys.executable, "-c", PROGRAM]
        done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=True)
        vnni, sums = done.stdout.split()
        return vnni, sums

    _, here = run()
    vnni, there = run(NUMBA_CPU_NAME=cpu)
    assert vnni == "False"
    assert there == here
