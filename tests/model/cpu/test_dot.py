import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.cpu.dot import COLUMNS, GROUP, OFFSET, multiply, pack

# Prints sums of a product that has every kind of tile, of the largest magnitudes.
PROGRAM = """
import numpy as np
from model.cpu.dot import has_vnni, multiply, pack
random = np.random.default_rng(0)
x, matrix = (random.choice([-128, -127, 0, 1, 127], size=(n, 512)).astype(np.int8) for n in (7, 96))
out = np.zeros((7, 96), np.int32)
multiply(x, 7, pack(matrix), 0, 6, 128, out)
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
    middle = int(random.integers(0, len(columns) + 1))
    for first, end in ((middle, len(columns)), (0, middle)):
        multiply(padded, rows, columns, first, end, columns.shape[1], out)
    excess = OFFSET * padded.astype(np.int32).sum(1, keepdims=True)
    assert np.array_equal((out - excess)[:, :n], x.astype(np.int32) @ matrix.astype(np.int32).T)


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
