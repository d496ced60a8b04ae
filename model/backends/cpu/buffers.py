"""What the compiled kernel reads and writes, and where it lies in memory; made from a network of PyTorch's.

Weights are quantised: each output channel of a product is a scale times whole numbers from -127 to 127. Keys and
values are too, each head's vector by itself. Knows nothing of arithmetic.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from model.backends.cpu.gemm import BLOCKS, pack
from model.backends.cpu.microkernel import COLUMNS, GROUP
from model.config import GPTConfig
from model.network import GPT, RMS_EPSILON, ROTARY_BASE, Block, Norm

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]
SignedBytes = NDArray[np.int8]
Ints = NDArray[np.int32]
Indices = NDArray[np.int64]
Number = TypeVar("Number", bound=np.generic)
Span = tuple[int, int]  # the first, and the one after the last

CHUNK = 16  # rows of one slot in one call
MAX_ROWS = 64  # that a thread computes at a time; both are multiples of 16, since AMX reads and writes so many
LANES = 64  # sums that run side by side
LINE = 64  # bytes of a cache line
APART = 16  # numbers between long rows: at multiples of 2 KiB they would share few places of the nearest cache


class Shape(NamedTuple):
    """What the compiled code must know of a configuration."""

    heads: int
    head_size: int
    window: int  # characters that a position attends to at most, itself included
    rotary: bool
    qk_norm: bool
    rmsnorm: bool
    relu2: bool
    logit_scale: np.float32
    epsilon: np.float32
    qk_epsilon: np.float32
    tiles: bool  # whether threads may use AMX


class Weights(NamedTuple):
    """L layers. Products as `dot.pack` lays them out, with a scale and a bias for each column.

    C, M (inside the MLP) and V are rounded up to multiples of 16 with zeros.
    """

    tokens: Floats  # (V, C)
    positions: Floats  # (W, C); without learned positions (1, C) zeros
    frequencies: NDArray[np.float64]  # (D/2,) of the rotary angles, radians per position
    norms: Floats  # (2·L+1, 2, C): weight and bias before each attention and each MLP, and at the end
    qkv: Bytes  # (L, 3·C/16, C/4, 64)
    qkv_scales: Floats  # (L, 2, 3·C): scales and biases
    mix: Bytes  # (L, C/16, C/4, 64)
    mix_scales: Floats
    expand: Bytes  # (L, M/16, C/4, 64)
    expand_scales: Floats
    reduce: Bytes  # (L, C/16, M/4, 64)
    reduce_scales: Floats
    head: Bytes  # (V/16, C/4, 64)
    head_scales: Floats  # (V,)


class Cache(NamedTuple):
    """Keys and values of S slots, in rings of R places: position p is at p mod R.

    D, the head size, is rounded up to a multiple of 4 for keys and of 16 for values.
    """

    keys: Bytes  # (S, L, H, R/16, D/4, 64)
    values: Bytes  # (S, L, H, D/16, R/4, 64), of which R/4 is the outer one in memory
    scales: Floats  # (S, L, 2, H, R): of keys and of values


class Scratch(NamedTuple):
    """Memory of one thread."""

    stream: Floats  # (rows, C): the residual stream
    normed: Floats  # (rows, C)
    qkv: Floats  # (rows, 3·C + APART): queries, keys and values
    sums: Ints  # (rows, 16·BLOCKS)
    narrow8: SignedBytes  # (rows, C)
    wide8: SignedBytes  # (rows, M)
    steps: Floats  # (rows,): the quantised rows' steps
    totals: Ints  # (rows,): their sums
    query8: SignedBytes  # (CHUNK, D): of the rows of one slot
    scores: Floats  # (max(R, M),)
    score_sums: Ints  # (CHUNK, R)
    weights8: SignedBytes  # (2·CHUNK, R): high and low bytes in turn
    mixed_sums: Ints  # (2·CHUNK, D)
    highs: Ints  # (CHUNK,): sums of the high bytes
    lows: Ints  # (CHUNK,)
    final8: SignedBytes  # (2, C)
    logit_sums: Ints  # (2, V)
    angles: Floats  # (rows, 2, D/2): cosines and sines
    bytes8: SignedBytes  # (D,), beyond the head size 0
    lanes: Floats  # (LANES,)


class Results(NamedTuple):
    """What the threads that compute the same rows write together, each a part of the columns."""

    wide: Floats  # (rows, M + APART): the inside of the MLP
    mixed: Floats  # (rows, C): attention's result
    added: Floats  # (rows, C): what is added to the residual stream


def shape_of(config: GPTConfig, tiles: bool) -> Shape:
    """The configuration as the kernel reads it; `tiles`: whether threads may use AMX."""
    return Shape(
        heads=config.n_head,
        head_size=config.head_size,
        window=config.block_size,
        rotary=config.positions == "rotary",
        qk_norm=config.qk_norm,
        rmsnorm=config.norm == "rmsnorm",
        relu2=config.activation == "relu2",
        logit_scale=np.float32(config.logit_scale),
        epsilon=np.float32(RMS_EPSILON if config.norm == "rmsnorm" else 1e-5),
        qk_epsilon=np.float32(RMS_EPSILON),
        tiles=tiles,
    )


def quantise_weights(network: GPT) -> Weights:
    """The network's weights, its products quantised."""
    config, blocks = network.config, cast(list[Block], list(network.blocks))
    width, inner = _up(config.n_embd), _up(4 * config.n_embd)
    attention, mlp = [block.attention for block in blocks], [block.mlp for block in blocks]
    qkv = _products([(a.query, a.key, a.value) for a in attention], width, width)
    mix = _products([(a.output,) for a in attention], width, width)
    expand = _products([(m.expand,) for m in mlp], inner, width)
    reduce = _products([(m.output,) for m in mlp], width, inner)
    norms = [norm for block in blocks for norm in (block.norm_attention, block.norm_mlp)]
    head, head_scales = _quantise(_array(network.tokens.weight, _up(config.vocab_size), width))
    rotary = config.positions == "rotary"
    places = np.arange(0, config.head_size if rotary else 0, 2, dtype=np.float64) / config.head_size
    weights = Weights(
        tokens=_array(network.tokens.weight, config.vocab_size, width),
        positions=_array(None if rotary else network.positions.weight, 1 if rotary else config.block_size, width),
        frequencies=ROTARY_BASE**-places,
        norms=np.stack([_norm(norm, width) for norm in [*norms, network.norm]]),
        qkv=qkv[0],
        qkv_scales=qkv[1],
        mix=mix[0],
        mix_scales=mix[1],
        expand=expand[0],
        expand_scales=expand[1],
        reduce=reduce[0],
        reduce_scales=reduce[1],
        head=head,
        head_scales=head_scales,
    )
    parts: list[Any] = [_aligned(part) for part in weights]
    return Weights(*parts)


def make_cache(config: GPTConfig, slots: int) -> Cache:
    """Room for a window and a chunk in each slot: what a chunk's end overwrites has left its beginning's window."""
    ring = _up(config.block_size + CHUNK)
    size, layers, heads = config.head_size, config.n_layer, config.n_head
    of_keys = ring // COLUMNS, _up(size, GROUP) // GROUP, COLUMNS * GROUP
    of_values = ring // GROUP, _up(size) // COLUMNS, COLUMNS * GROUP
    return Cache(
        keys=_zeros((slots, layers, heads, *of_keys), np.uint8),
        values=_zeros((slots, layers, heads, *of_values), np.uint8).swapaxes(3, 4),
        scales=_zeros((slots, layers, 2, heads, ring), np.float32),
    )


def make_scratch(weights: Weights, cache: Cache, head_size: int) -> Scratch:
    """Memory for `MAX_ROWS` rows."""
    width, inner, ring = weights.tokens.shape[1], weights.expand.shape[1] * COLUMNS, cache.scales.shape[4]
    return Scratch(
        stream=_zeros((MAX_ROWS, width), np.float32),
        normed=_zeros((MAX_ROWS, width), np.float32),
        qkv=_zeros((MAX_ROWS, 3 * width + APART), np.float32),
        sums=_zeros((MAX_ROWS, BLOCKS * COLUMNS), np.int32),
        narrow8=_zeros((MAX_ROWS, width), np.int8),
        wide8=_zeros((MAX_ROWS, inner), np.int8),
        steps=_zeros((MAX_ROWS,), np.float32),
        totals=_zeros((MAX_ROWS,), np.int32),
        query8=_zeros((CHUNK, _up(head_size, GROUP)), np.int8),
        scores=_zeros((max(ring, inner),), np.float32),
        score_sums=_zeros((CHUNK, ring), np.int32),
        weights8=_zeros((2 * CHUNK, ring), np.int8),
        mixed_sums=_zeros((2 * CHUNK, _up(head_size)), np.int32),
        highs=_zeros((CHUNK,), np.int32),
        lows=_zeros((CHUNK,), np.int32),
        final8=_zeros((2, width), np.int8),
        logit_sums=_zeros((2, len(weights.head_scales)), np.int32),
        angles=_zeros((MAX_ROWS, 2, len(weights.frequencies)), np.float32),
        bytes8=_zeros((_up(head_size),), np.int8),
        lanes=_zeros((LANES,), np.float32),
    )


def make_results(weights: Weights) -> Results:
    """Memory for `MAX_ROWS` rows."""
    width, inner = weights.tokens.shape[1], weights.expand.shape[1] * COLUMNS
    return Results(
        wide=_zeros((MAX_ROWS, inner + APART), np.float32),
        mixed=_zeros((MAX_ROWS, width), np.float32),
        added=_zeros((MAX_ROWS, width), np.float32),
    )


def _zeros(shape: tuple[int, ...], dtype: type[Number]) -> NDArray[Number]:
    """Zeros that begin where a cache line does: vectors that lie across two take twice as long to read."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    memory = np.zeros(size + LINE, np.uint8)
    start = -memory.ctypes.data % LINE
    return memory[start : start + size].view(dtype).reshape(shape)


def _aligned(array: NDArray[Number]) -> NDArray[Number]:
    """The same in memory of `_zeros`."""
    copy = _zeros(array.shape, array.dtype.type)
    copy[...] = array
    return copy


def _up(size: int, multiple: int = COLUMNS) -> int:
    return -(-size // multiple) * multiple


def _array(tensor: Tensor | None, *shape: int, fill: float = 0.0) -> Floats:
    """A float32 array of `shape` with the tensor in its first corner."""
    array = np.full(shape, fill, dtype=np.float32)
    if tensor is not None:
        values = tensor.detach().float().cpu().numpy()
        array[tuple(slice(0, n) for n in values.shape)] = values
    return array


def _norm(norm: Norm, width: int) -> Floats:
    weight, bias = getattr(norm, "weight", None), getattr(norm, "bias", None)
    return np.stack((_array(weight, width, fill=1.0), _array(bias, width)))


def _products(layers: Sequence[tuple[nn.Linear, ...]], outputs: int, inputs: int) -> tuple[Bytes, Floats]:
    """Per layer, some matrices as one: packed columns, and the columns' scales and biases."""
    packed, scales = [], []
    for parts in layers:
        columns, scale = _quantise(np.concatenate([_array(part.weight, outputs, inputs) for part in parts]))
        packed.append(columns)
        scales.append(np.stack((scale, np.concatenate([_array(part.bias, outputs) for part in parts]))))
    return np.stack(packed), np.stack(scales)


def _quantise(matrix: Floats) -> tuple[Bytes, Floats]:
    """(N, K) to packed columns and their scales (N,): the nearest multiples of each channel's largest / 127."""
    scales = np.abs(matrix).max(axis=1) / np.float32(127)
    whole = np.rint(matrix / np.maximum(scales, 1e-30)[:, None]).astype(np.int8)
    return pack(whole), scales
