"""Microkernels of CPUs that are not this one: by the assembly that they become, and by an emulated CPU's sums."""

import re
from typing import Any

import llvmlite.binding as llvm
import numpy as np
import pytest
import unicorn
from hypothesis import given, settings
from hypothesis import strategies as st
from llvmlite import ir
from numpy.typing import NDArray
from unicorn.arm64_const import (
    UC_ARM64_REG_CPACR_EL1,
    UC_ARM64_REG_LR,
    UC_ARM64_REG_SP,
    UC_ARM64_REG_X0,
    UC_ARM64_REG_X1,
    UC_ARM64_REG_X2,
    UC_CPU_ARM64_MAX,
)

from model.backends.cpu.microkernel import (
    BLOCK_BYTES,
    BLOCK_COLUMNS,
    K_GROUP,
    MICROKERNEL_BLOCKS,
    MICROKERNEL_ROWS,
    AvxVnni,
    MatrixPointer,
    MultiplyAdd,
    NeonDot,
    Pairs,
    VectorMicrokernel,
    Vnni,
)

X86 = "x86_64-unknown-linux-gnu"
ARM = "aarch64-unknown-linux-gnu"
INT8 = ir.IntType(8)
INT32 = ir.IntType(32)
INT64 = ir.IntType(64)
SIZES = [(MICROKERNEL_ROWS, 1), (1, MICROKERNEL_BLOCKS)]  # rows and blocks: the largest of every family

_unicorn: Any = unicorn  # it has no annotations
llvm.initialize_all_targets()
llvm.initialize_all_asmprinters()


def compiled(
    arithmetic: type[MultiplyAdd], rows: int, blocks: int, k_groups: int, triple: str, cpu: str
) -> tuple[llvm.TargetMachine, llvm.ModuleRef]:
    """product(x, columns, out), optimised for a CPU."""
    k = INT64(k_groups * K_GROUP)
    module = ir.Module()
    module.triple = triple
    element = ir.IntType(8 * np.dtype(arithmetic.row_dtype).itemsize)
    arguments = [element.as_pointer(), INT8.as_pointer(), INT32.as_pointer()]
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), arguments), "product")
    builder = ir.IRBuilder(function.append_basic_block())
    x, columns, out = function.args
    VectorMicrokernel(arithmetic, rows, blocks).emit(
        builder,
        MatrixPointer(x, k, INT64(1)),
        MatrixPointer(columns, INT64(k_groups * BLOCK_BYTES), INT64(BLOCK_BYTES)),
        MatrixPointer(out, INT64(blocks * BLOCK_COLUMNS), INT64(1)),
        INT64(k_groups),
        INT64(0),
    )
    builder.ret_void()
    machine = llvm.Target.from_triple(triple).create_target_machine(cpu=cpu, opt=3)
    parsed = llvm.parse_assembly(str(module))
    passes = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(speed_level=3))
    passes.getModulePassManager().run(parsed, passes)
    return machine, parsed


@pytest.mark.parametrize(("rows", "blocks"), SIZES)
@pytest.mark.parametrize(
    ("arithmetic", "triple", "cpu", "instruction"),
    [
        (Vnni, X86, "sapphirerapids", r"vpdpbusd\s.*%zmm"),
        (AvxVnni, X86, "alderlake", r"\{vex\}\s+vpdpbusd\s.*%ymm"),
        (Pairs, X86, "haswell", r"vpmaddwd\s.*%ymm"),
        (Pairs, X86, "x86-64-v2", r"pmaddwd\s.*%xmm"),
        (NeonDot, ARM, "apple-m1", r"sdot\s+v\d+\.4s"),
        (NeonDot, ARM, "neoverse-n1", r"sdot\s+v\d+\.4s"),
        (NeonDot, ARM, "cortex-a76", r"sdot\s+v\d+\.4s"),
    ],
)
def test_each_family_has_its_instruction(
    arithmetic: type[MultiplyAdd], triple: str, cpu: str, instruction: str, rows: int, blocks: int
) -> None:
    """As often as the product needs it, unrolled or not; and no sum is kept on the stack."""
    machine, module = compiled(arithmetic, rows, blocks, 1, triple, cpu)
    assembly = machine.emit_assembly(module)
    lanes = 4 if cpu == "x86-64-v2" else arithmetic.lanes  # its registers are half of what is asked for
    parts = K_GROUP // arithmetic.elements_together
    assert len(re.findall(instruction, assembly)) == rows * blocks * parts * BLOCK_COLUMNS // lanes
    if cpu != "x86-64-v2":
        assert not re.search(r"\(%rsp\)|\[sp", assembly)


def run_on_arm(
    machine: llvm.TargetMachine, module: llvm.ModuleRef, x: NDArray[np.int8], columns: NDArray[np.uint8], size: int
) -> NDArray[np.int32]:
    """The sums that an emulated CPU computes; it has `size` of them."""
    sections = {}
    for section in llvm.ObjectFileRef.from_data(machine.emit_object(module)).sections():
        sections[section.name()] = section.data()
    code, x_at, columns_at, out_at, stack, end = (0x100000 * i for i in range(1, 7))
    emulator = _unicorn.Uc(_unicorn.UC_ARCH_ARM64, _unicorn.UC_MODE_ARM)
    emulator.ctl_set_cpu_model(UC_CPU_ARM64_MAX)
    emulator.mem_map(code, end)
    emulator.mem_write(code, sections[b".text"])
    emulator.mem_write(x_at, x.tobytes())
    emulator.mem_write(columns_at, columns.tobytes())
    emulator.reg_write(UC_ARM64_REG_CPACR_EL1, 3 << 20)  # vector instructions are not trapped
    emulator.reg_write(UC_ARM64_REG_SP, end)
    emulator.reg_write(UC_ARM64_REG_LR, stack)
    emulator.reg_write(UC_ARM64_REG_X0, x_at)
    emulator.reg_write(UC_ARM64_REG_X1, columns_at)
    emulator.reg_write(UC_ARM64_REG_X2, out_at)
    emulator.emu_start(code, stack)
    return np.frombuffer(emulator.mem_read(out_at, 4 * size), np.int32)


@settings(max_examples=25)
@given(
    rows=st.integers(1, MICROKERNEL_ROWS),
    blocks=st.sampled_from([1, MICROKERNEL_BLOCKS]),
    k_groups=st.integers(1, 40),
    cpu=st.sampled_from(["apple-m1", "neoverse-n1", "cortex-a76"]),
    values=st.sampled_from([[-128, -127, 0, 1, 127], list(range(-128, 128)), [-128], [127]]),
    seed=st.integers(0, 2**32 - 1),
)
def test_arms_sums_are_exact(rows: int, blocks: int, k_groups: int, cpu: str, values: list[int], seed: int) -> None:
    random = np.random.default_rng(seed)
    k = K_GROUP * k_groups
    x = random.choice(values, size=(rows, k)).astype(np.int8)
    matrix = random.choice(values, size=(BLOCK_COLUMNS * blocks, k)).astype(np.int8)
    columns = matrix.reshape(blocks, BLOCK_COLUMNS, k_groups, K_GROUP).swapaxes(1, 2).copy().view(np.uint8)
    machine, module = compiled(NeonDot, rows, blocks, k_groups, ARM, cpu)
    sums = run_on_arm(machine, module, x, columns, rows * len(matrix))
    assert np.array_equal(sums.reshape(rows, -1), x.astype(np.int32) @ matrix.astype(np.int32).T)
