"""The arrays that the compiled kernel reads and writes, and their layout; made from a checkpoint's weights.

Weights are quantised: each output channel of a product is a scale times whole numbers from -127 to 127. So are keys
and values, each head's vector by itself. Knows nothing of arithmetic.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from model.backends.cpu.gemm import pack_columns
from model.backends.cpu.microkernel import BLOCK_BYTES, BLOCK_COLUMNS, CPU_FAMILY, K_GROUP, MICROKERNEL_BLOCKS
from model.config import NORM_EPSILONS, RMS_EPSILON, GPTConfig
from model.quantisation import quantise_channels

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]
SignedBytes = NDArray[np.int8]
Rows = NDArray[np.signedinteger[Any]]  # values of int8 as `CPU_FAMILY.row_dtype`: left operands of products
Ints = NDArray[np.int32]
Indices = NDArray[np.int64]
Number = TypeVar("Number", bound=np.generic)

PREFILL_CHUNK = 64  # ids of one slot that one call reads at most
MAX_ROWS = 64  # rows that a thread computes at a time
ATTENTION_ROWS = 16  # of one slot, whose attention is computed at a time; all are multiples of 16, as AMX needs it
NUM_PARTIAL_SUMS = 64  # of a sum of floats, side by side
CACHE_LINE_BYTES = 64
# Numbers between long rows: at multiples of 2 KiB, the same element of all rows would compete for few places of the
# first-level cache.
ROW_PADDING = 16


class Span(NamedTuple):
    """Indices from `start` up to `end`, which is not included."""

    start: int
    end: int


class KernelConfig(NamedTuple):
    """What the compiled code knows of a configuration."""

    heads: int
    head_size: int
    window: int  # characters that a position attends to at most, itself included
    rotary: bool
    qk_norm: bool
    rmsnorm: bool  # LayerNorm if not
    relu2: bool  # GELU if not
    logit_scale: np.float32
    epsilon: np.float32
    qk_epsilon: np.float32
    use_amx: bool  # whether threads may use AMX


class Weights(NamedTuple):
    """Weights of L layers. Products are packed as by `gemm.pack_columns`, with a scale and a bias for each column.

    C, M (the width inside the MLP) and V are rounded up to multiples of 16, with zeros.
    """

    tokens: Floats  # (V, C)
    positions: Floats  # (W, C); without learned positions (1, C) zeros
    frequencies: NDArray[np.float64]  # (D/2,) of the rotary angles, radians per position
    norms: Floats  # (2·L+1, 2, C): weight and bias before each attention and each MLP, and at the end
    qkv: Bytes  # (L, 3·C/16, C/4, 64)
    qkv_scales: Floats  # (L, 2, 3·C): scales and biases
    attention_output: Bytes  # (L, C/16, C/4, 64)
    attention_output_scales: Floats  # (L, 2, C)
    mlp_expand: Bytes  # (L, M/16, C/4, 64)
    mlp_expand_scales: Floats  # (L, 2, M)
    mlp_output: Bytes  # (L, C/16, M/4, 64)
    mlp_output_scales: Floats  # (L, 2, C)
    head: Bytes  # (V/16, C/4, 64)
    head_scales: Floats  # (V,)


class Cache(NamedTuple):
    """Keys and values of S slots, in rings of R entries: position p is at index p mod R.

    Both are packed columns, so that attention is two products: keys are the columns of scores = query · keys, with
    K = D; values are the columns of output = weights · values, with K = R. A ring entry is a column of keys, and
    an element along K of values. D, the head size, is rounded up to a multiple of 4 for keys, and for values to
    `_value_width`.

    In memory, the blocks of values of each four entries lie beside each other, so that a new value is written to
    neighbouring cache lines.
    """

    keys: Bytes  # (S, L, H, R/16, D/4, 64)
    values: Bytes  # (S, L, H, D/16, R/4, 64), of which the axis R/4 is the outer one in memory
    scales: Floats  # (S, L, 2, H, R): of keys and of values


class Scratch(NamedTuple):
    """Memory of one thread. Rows are `MAX_ROWS` unless another number is given."""

    residual: Floats  # (rows, C): the residual stream
    normed: Floats  # (rows, C): the residual stream after a norm
    qkv: Floats  # (rows, 3·C + ROW_PADDING): queries, keys and values
    gemm_sums: Ints  # (rows, 16·MICROKERNEL_BLOCKS)
    int8_rows: Rows  # (rows, C): the quantised left operand of a product
    int8_mlp_rows: Rows  # (rows, M): the same for the MLP's second product
    row_scales: Floats  # (rows,): of the rows quantised last
    row_sums: Ints  # (rows,): sums of the rows quantised last
    int8_queries: Rows  # (ATTENTION_ROWS, D): one head's, of the rows of one slot
    scores: Floats  # (max(R, M),): of one row and head; also scratch of GELU
    score_sums: Ints  # (ATTENTION_ROWS, R)
    softmax_bytes: Rows  # (2·ATTENTION_ROWS, R): a row of high bytes, a row of low ones, and so on
    softmax_high_sums: Ints  # (ATTENTION_ROWS,)
    softmax_low_sums: Ints  # (ATTENTION_ROWS,)
    value_sums: Ints  # (2·ATTENTION_ROWS, D): products of `softmax_bytes` and values
    final_bytes: Rows  # (2, C): high and low bytes of the last norm's result
    logit_sums: Ints  # (2, V)
    rotary_angles: Floats  # (rows, 2, D/2): cosines and sines
    int8_head: SignedBytes  # (D,): one key or value; 0 beyond the head size
    partial_sums: Floats  # (NUM_PARTIAL_SUMS,)


class Activations(NamedTuple):
    """What threads that compute the same rows write together, each a shard of the columns."""

    mlp_hidden: Floats  # (rows, M + ROW_PADDING): inside the MLP
    attended: Floats  # (rows, C): attention's result, before its output projection
    residual_update: Floats  # (rows, C): what is added to the residual stream


def kernel_config(config: GPTConfig, use_amx: bool) -> KernelConfig:
    """Return a configuration as the kernel reads it; `use_amx`: whether threads may use AMX."""
    return KernelConfig(
        heads=config.n_head,
        head_size=config.head_size,
        window=config.block_size,
        rotary=config.positions == "rotary",
        qk_norm=config.qk_norm,
        rmsnorm=config.norm == "rmsnorm",
        relu2=config.activation == "relu2",
        logit_scale=np.float32(config.logit_scale),
        epsilon=np.float32(NORM_EPSILONS[config.norm]),
        qk_epsilon=np.float32(RMS_EPSILON),
        use_amx=use_amx,
    )


def quantise_weights(config: GPTConfig, stored: Mapping[str, NDArray[Any]]) -> Weights:
    """Return a checkpoint's weights, those of products quantised.

    Args:
        stored: by their names in the network, of any floating-point type.
    """
    width = _round_up(config.n_embd)
    mlp_width = _round_up(4 * config.n_embd)
    rotary = config.positions == "rotary"
    blocks = [f"blocks.{layer}" for layer in range(config.n_layer)]
    norms: list[str] = []
    for block in blocks:
        norms.extend((f"{block}.norm_attention", f"{block}.norm_mlp"))
    norms.append("norm")

    def quantise(parts: Sequence[str], output_width: int, input_width: int) -> _QuantisedProduct:
        """Quantise one product of each layer, whose matrices are those of `parts`, one after the other."""
        layers = [[f"{block}.{part}" for part in parts] for block in blocks]
        return _quantise_products(stored, layers, output_width, input_width)

    qkv = quantise(("attention.query", "attention.key", "attention.value"), width, width)
    attention_output = quantise(("attention.output",), width, width)
    mlp_expand = quantise(("mlp.expand",), mlp_width, width)
    mlp_output = quantise(("mlp.output",), width, mlp_width)
    tokens = stored["tokens.weight"]
    head, head_scales = _pack_channels(_padded_array(tokens, _round_up(config.vocab_size), width))
    learned_positions = stored.get("positions.weight")
    weights = Weights(
        tokens=_padded_array(tokens, config.vocab_size, width),
        positions=_padded_array(learned_positions, 1 if rotary else config.block_size, width),
        frequencies=np.array(config.rotary_frequencies, dtype=np.float64),
        norms=np.stack([_norm_parameters(stored, norm, width) for norm in norms]),
        qkv=qkv.columns,
        qkv_scales=qkv.scales,
        attention_output=attention_output.columns,
        attention_output_scales=attention_output.scales,
        mlp_expand=mlp_expand.columns,
        mlp_expand_scales=mlp_expand.scales,
        mlp_output=mlp_output.columns,
        mlp_output_scales=mlp_output.scales,
        head=head,
        head_scales=head_scales,
    )
    aligned: list[Any] = [_aligned(array) for array in weights]
    return Weights(*aligned)


def make_cache(config: GPTConfig, slots: int) -> Cache:
    """Return an empty cache.

    A ring has room for a window and `ATTENTION_ROWS` more: when the last of so many ids is written, what it
    overwrites has left the window of the first one. So rejected draft tokens have destroyed nothing either.
    """
    ring_size = _round_up(config.block_size + ATTENTION_ROWS)
    size = config.head_size
    leading_axes = (slots, config.n_layer, config.n_head)
    keys_shape = (*leading_axes, ring_size // BLOCK_COLUMNS, _round_up(size, K_GROUP) // K_GROUP, BLOCK_BYTES)
    values_shape = (*leading_axes, ring_size // K_GROUP, _value_width(size) // BLOCK_COLUMNS, BLOCK_BYTES)
    return Cache(
        keys=_zeros(keys_shape, np.uint8),
        values=_zeros(values_shape, np.uint8).swapaxes(3, 4),
        scales=_zeros((slots, config.n_layer, 2, config.n_head, ring_size), np.float32),
    )


def make_scratch(weights: Weights, cache: Cache, head_size: int) -> Scratch:
    """Return one thread's memory, for `MAX_ROWS` rows."""
    width = weights.tokens.shape[1]
    padded_vocab_size = len(weights.head_scales)
    mlp_width = weights.mlp_expand.shape[1] * BLOCK_COLUMNS
    ring_size = cache.scales.shape[4]
    return Scratch(
        residual=_zeros((MAX_ROWS, width), np.float32),
        normed=_zeros((MAX_ROWS, width), np.float32),
        qkv=_zeros((MAX_ROWS, 3 * width + ROW_PADDING), np.float32),
        gemm_sums=_zeros((MAX_ROWS, MICROKERNEL_BLOCKS * BLOCK_COLUMNS), np.int32),
        int8_rows=_zeros((MAX_ROWS, width), CPU_FAMILY.row_dtype),
        int8_mlp_rows=_zeros((MAX_ROWS, mlp_width), CPU_FAMILY.row_dtype),
        row_scales=_zeros((MAX_ROWS,), np.float32),
        row_sums=_zeros((MAX_ROWS,), np.int32),
        int8_queries=_zeros((ATTENTION_ROWS, _round_up(head_size, K_GROUP)), CPU_FAMILY.row_dtype),
        scores=_zeros((max(ring_size, mlp_width),), np.float32),
        score_sums=_zeros((ATTENTION_ROWS, ring_size), np.int32),
        softmax_bytes=_zeros((2 * ATTENTION_ROWS, ring_size), CPU_FAMILY.row_dtype),
        softmax_high_sums=_zeros((ATTENTION_ROWS,), np.int32),
        softmax_low_sums=_zeros((ATTENTION_ROWS,), np.int32),
        value_sums=_zeros((2 * ATTENTION_ROWS, _round_up(head_size)), np.int32),
        final_bytes=_zeros((2, width), CPU_FAMILY.row_dtype),
        logit_sums=_zeros((2, padded_vocab_size), np.int32),
        rotary_angles=_zeros((MAX_ROWS, 2, len(weights.frequencies)), np.float32),
        int8_head=_zeros((_value_width(head_size),), np.int8),
        partial_sums=_zeros((NUM_PARTIAL_SUMS,), np.float32),
    )


def make_activations(weights: Weights) -> Activations:
    """Return memory for `MAX_ROWS` rows."""
    width = weights.tokens.shape[1]
    mlp_width = weights.mlp_expand.shape[1] * BLOCK_COLUMNS
    return Activations(
        mlp_hidden=_zeros((MAX_ROWS, mlp_width + ROW_PADDING), np.float32),
        attended=_zeros((MAX_ROWS, width), np.float32),
        residual_update=_zeros((MAX_ROWS, width), np.float32),
    )


def _value_width(head_size: int) -> int:
    """Return a head's size in the cache of values: whole blocks, and two at least.

    With one, the array of values would be contiguous, which is another type: the kernel would be compiled twice.
    """
    return max(2 * BLOCK_COLUMNS, _round_up(head_size))


def _zeros(shape: tuple[int, ...], dtype: type[Number]) -> NDArray[Number]:
    """Return zeros that begin at a cache line: vectors that lie across two take twice as long to read."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    memory = np.zeros(size + CACHE_LINE_BYTES, np.uint8)
    start = -memory.ctypes.data % CACHE_LINE_BYTES
    return memory[start : start + size].view(dtype).reshape(shape)


def _aligned(array: NDArray[Number]) -> NDArray[Number]:
    """Return a copy that begins at a cache line."""
    copy = _zeros(array.shape, array.dtype.type)
    copy[...] = array
    return copy


def _round_up(size: int, multiple: int = BLOCK_COLUMNS) -> int:
    return -(-size // multiple) * multiple


def _padded_array(values: NDArray[Any] | None, *shape: int, fill: float = 0.0) -> Floats:
    """Return a float32 array of `shape` with the values in its first corner and `fill` elsewhere."""
    array = np.full(shape, fill, dtype=np.float32)
    if values is not None:
        corner = tuple(slice(0, length) for length in values.shape)
        array[corner] = values
    return array


def _norm_parameters(stored: Mapping[str, NDArray[Any]], name: str, width: int) -> Floats:
    """Return weight and bias (2, `width`) of a norm, 1 and 0 where it has none."""
    weight = _padded_array(stored.get(f"{name}.weight"), width, fill=1.0)
    bias = _padded_array(stored.get(f"{name}.bias"), width)
    return np.stack((weight, bias))


class _QuantisedProduct(NamedTuple):
    """One product of each of L layers."""

    columns: Bytes  # (L, N/16, K/4, 64)
    scales: Floats  # (L, 2, N): scales and biases


def _quantise_products(
    stored: Mapping[str, NDArray[Any]], layers: Sequence[Sequence[str]], output_width: int, input_width: int
) -> _QuantisedProduct:
    """Return the product of each layer, whose named matrices (`output_width`, `input_width`) follow each other."""
    columns: list[Bytes] = []
    scales: list[Floats] = []
    for names in layers:
        weights = [_padded_array(stored[f"{name}.weight"], output_width, input_width) for name in names]
        biases = [_padded_array(stored.get(f"{name}.bias"), output_width) for name in names]
        layer_columns, layer_scales = _pack_channels(np.concatenate(weights))
        columns.append(layer_columns)
        scales.append(np.stack((layer_scales, np.concatenate(biases))))
    return _QuantisedProduct(np.stack(columns), np.stack(scales))


def _pack_channels(matrix: Floats) -> tuple[Bytes, Floats]:
    """Return a matrix (N, K) as packed columns of whole numbers, and their scales (N,)."""
    whole_numbers, scales = quantise_channels(matrix)
    return pack_columns(whole_numbers), scales
