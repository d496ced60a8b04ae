import os
import subprocess
import sys
from typing import Any

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from model.backends.cpu import amx
from model.backends.cpu.gemm import ZERO_POINT, gemm, pack_columns
from model.backends.cpu.microkernel import BLOCK_COLUMNS, CPU_FAMILY, K_GROUP, Pairs

compiled_gemm: Any = numba.njit(nogil=True)(gemm)

# Prints sums of a product that needs every variant of the microkernel, of the largest magnitudes.
PROGRAM = """
import numba
import numpy as np
from model.backends.cpu.gemm import gemm, pack_columns
from model.backends.cpu.microkernel import CPU_FAMILY
random = np.random.default_rng(0)
x = random.choice([-128, -127, 0, 1, 127], size=(7, 512)).astype(CPU_FAMILY.row_dtype)
matrix = random.choice([-128, -127, 0, 1, 127], size=(96, 512)).astype(np.int8)
out = np.zeros((7, 96), np.int32)
numba.njit(gemm)(x, 7, pack_columns(matrix), 6, 128, out, False, 0)
print(CPU_FAMILY.name)
print(out.tobytes().hex())
"""


@settings(max_examples=60)
@given(rows=st.integers(1, 9), n=st.integers(1, 100), k=st.integers(1, 80), seed=st.integers(0, 2**32 - 1))
def test_a_product_is_exact(rows: int, n: int, k: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    x = random.integers(-128, 128, size=(rows, k)).astype(np.int8)
    matrix = random.integers(-128, 128, size=(n, k)).astype(np.int8)
    padded = np.zeros((rows, -(-k // K_GROUP) * K_GROUP), CPU_FAMILY.row_dtype)
    padded[:, :k] = x
    columns = pack_columns(matrix)
    out = np.zeros((rows, len(columns) * BLOCK_COLUMNS), np.int32)
    compiled_gemm(padded, rows, columns, len(columns), columns.shape[1], out, False, 0)
    excess = ZERO_POINT * padded.astype(np.int32).sum(1, keepdims=True)
    assert np.array_equal((out - excess)[:, :n], x.astype(np.int32) @ matrix.astype(np.int32).T)


@numba.njit(nogil=True)
def gemm_by_amx(
    x: NDArray[np.int8], rows: int, columns: NDArray[np.uint8], blocks: int, k_groups: int, out: NDArray[np.int32]
) -> None:
    amx.configure_tiles()
    gemm(x, rows, columns, blocks, k_groups, out, True, 0)
    amx.release_tiles()


@pytest.mark.skipif(not amx.request_amx(), reason="no AMX here")
@settings(max_examples=60)
@given(rows=st.integers(1, 80), blocks=st.integers(1, 5), tiles=st.integers(1, 4), seed=st.integers(0, 2**32 - 1))
def test_amx_finds_the_same_sums(rows: int, blocks: int, tiles: int, seed: int) -> None:
    """Also of columns that lie in memory as values do in the cache: all blocks of a K group beside each other."""
    random = np.random.default_rng(seed)
    x = random.integers(-128, 128, size=(-rows % amx.TILE_ROWS + rows, 64 * tiles)).astype(np.int8)
    columns = random.integers(0, 256, size=(blocks, 16 * tiles, 64)).astype(np.uint8)
    interleaved = np.ascontiguousarray(columns.swapaxes(0, 1)).swapaxes(0, 1)
    expected = np.zeros((len(x), blocks * BLOCK_COLUMNS), np.int32)
    compiled_gemm(x, rows, columns, blocks, 16 * tiles, expected, False, 0)
    for layout in (columns, interleaved):
        out = np.zeros_like(expected)
        gemm_by_amx(x, rows, layout, blocks, 16 * tiles, out)
        assert np.array_equal(out[:rows], expected[:rows])


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="names CPUs of another kind")
@pytest.mark.parametrize("cpu", ["haswell", "x86-64-v2"])
def test_an_older_cpu_finds_the_same_sums(cpu: str) -> None:
    def run(**environment: str) -> tuple[str, str]:
        command = [sys.executable, "-c", PROGRAM]
        done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=True)
        name, sums = done.stdout.splitlines()
        return name, sums

    _, here = run()
    name, there = run(NUMBA_CPU_NAME=cpu)
    assert name == Pairs.name
    assert there == here
