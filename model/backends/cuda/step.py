"""One step of all rows: the memory that it works in, which stays where it is, and its kernels in their order."""

from functools import partial
from itertools import product
from typing import Any

import numpy as np
import torch
import triton
from numpy.typing import NDArray
from torch import Tensor

from model.backends.cuda import drawing, kernels
from model.backends.cuda.table import Table
from model.device import Numerics
from model.network import GPT, ROTARY_BASE
from model.sampling.ngram_draft import UNITS_PER_NAT
from model.sampling.sampler import Logits

# Sums are grouped by these, so they are the same for any number of rows:
BLOCK_M, BLOCK_N, BLOCK_K = 16, 32, 64
WARPS = 2
BLOCK_RING, RING_WARPS = 64, 2
RING_MULTIPLE = 8  # each layer's keys begin at 16 bytes for any number of slots: else sums are grouped otherwise
EARLY_ROWS = 128  # up to so many, a kernel is launched before the last one has ended; for more it does not pay
STAGES, STAGE_BYTES = 4, 16384  # of a product's weights that are on their way; wider ones, fewer and smaller
MAX_DRAWN = 4096  # characters that are looked at together
NORMS = {"rmsnorm": kernels.RMS.value, "layernorm": kernels.LAYER.value}
ACTIVATIONS = {"relu2": kernels.RELU2.value, "gelu": kernels.GELU.value}


class Step:
    """Weights, caches and buffers of a network on a GPU.

    Args:
        chunk: ids of one slot in a step at most.
        rows: in a step at most; like any number of rows here a multiple of `BLOCK_M`.
        steps: that are drawn without a look at them at most.
    """

    def __init__(
        self, network: GPT, numerics: Numerics, slots: int, chunk: int, rows: int, steps: int, table: Table
    ) -> None:
        self.config = config = network.config
        self.device, self._table = numerics.device, table
        ring = config.block_size + (chunk if config.positions == "rotary" else 0)
        ring += -ring % RING_MULTIPLE
        zeros = partial(torch.zeros, device=self.device)
        shape = (config.n_layer, 2, slots, config.n_head, ring, config.head_size)
        self._cache = zeros(*shape, dtype=numerics.dtype)
        self._weights = {
            name: tensor.detach()
            .to(self.device, numerics.dtype if tensor.ndim == 2 else torch.float32)
            .contiguous()
            for name, tensor in network.state_dict().items()
        }
        for layer, kind in product(range(config.n_layer), ("weight", "bias")[: 1 + config.bias]):
            names = [f"blocks.{layer}.attention.{part}.{kind}" for part in ("query", "key", "value")]
            self._weights[f"blocks.{layer}.inputs.{kind}"] = torch.cat([self._weights.pop(name) for name in names])
        places = torch.arange(0, config.head_size, 2, dtype=torch.float64)
        self._frequencies = (ROTARY_BASE ** -(places / config.head_size)).to(self.device)
        self._angles = zeros(2, rows, len(places))
        self._x = zeros(rows, config.n_embd)
        self._queries = zeros(rows, config.n_embd)
        self._mixed = zeros(rows, config.n_embd, dtype=numerics.dtype)
        self._hidden = zeros(rows, 4 * config.n_embd, dtype=numerics.dtype)
        self._logits = zeros(rows, config.vocab_size)
        self._rows = zeros(kernels.ROW_FIELDS, rows, dtype=torch.int64)
        self._streams = zeros(drawing.STREAM_FIELDS, rows, dtype=torch.int64)
        self._ids, self._counts = zeros(2, steps * rows, dtype=torch.int32)
        self._told = zeros(steps * rows, config.vocab_size)
        pinned = partial(torch.zeros, pin_memory=self.device.type == "cuda")
        self._host = {
            id(one): pinned(one.shape, dtype=one.dtype)
            for one in (self._rows, self._streams, self._ids, self._counts, self._told, self._logits)
        }
        self._hopper = self.device.type == "cuda" and torch.cuda.get_device_capability(self.device) >= (9, 0)
        self._cache_shape: dict[str, Any] = {
            "STRIDE": rows,
            "SLOTS": slots,
            "HEADS": config.n_head,
            "SIZE": config.head_size,
            "RING": ring,
        }

    def fill_rows(self, rows: NDArray[np.int64], size: int) -> None:
        """Say what to compute: rows (n, 3), and none up to `size`."""
        self._fill(self._rows, rows, size)

    def fill_streams(self, streams: NDArray[np.int64], size: int) -> None:
        """Say who draws: streams (n, 11), and none up to `size`."""
        self._fill(self._streams, streams, size)

    def logits(self, rows: int) -> Logits:
        """Those of the first rows (n, V), when the step is done."""
        return self._to_host((self._logits, rows))[0].numpy().copy()

    def drawn(self, steps: int, rows: int) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        """What was drawn in these steps, when they are done, valid until the next: ids (steps, rows), how many of
        them each stream took (steps, rows), logits (steps, rows, V).
        """
        count = steps * rows
        ids, counts, told = self._to_host((self._ids, count), (self._counts, count), (self._told, count))
        return (
            ids.numpy().reshape(steps, rows),
            counts.numpy().reshape(steps, rows),
            told.numpy().reshape(steps, rows, -1),
        )

    def wait(self) -> None:
        """Until all that was started is done; not for what other threads capture, which that would disturb."""
        if self.device.type == "cuda":
            torch.cuda.current_stream().synchronize()

    def forward(self, rows: int) -> None:
        """Start the network's kernels for the first so many rows."""
        config, power = self.config, triton.next_power_of_2
        half = (config.head_size + 1) // 2
        head = 2 * max(8, power(half))
        self._start(
            rows,
            kernels.embed,
            (rows,),
            *(self._rows, self._weights["tokens.weight"], self._layer("positions")[0], self._frequencies, self._x),
            *self._angles,
            STRIDE=self._cache_shape["STRIDE"],
            WIDTH=config.n_embd,
            HALF=half,
            LEARNED=config.positions == "learned",
            BLOCK=power(config.n_embd),
            BLOCK_HALF=power(half),
        )
        for layer in range(config.n_layer):
            block, cache = f"blocks.{layer}", self._cache[layer]
            self._start(
                rows,
                kernels.attention_inputs,
                (rows // BLOCK_M, 3 * config.n_head),
                *(self._rows, self._x, *self._layer(f"{block}.inputs"), *self._layer(f"{block}.norm_attention")),
                *(*self._angles, self._queries, cache),
                **self._cache_shape,
                ROTARY=config.positions == "rotary",
                QK_NORM=config.qk_norm,
                BLOCK_HALF=head // 2,
                **self._product(f"{block}.inputs", f"{block}.norm_attention", config.n_embd, head),
            )
            self._start(
                rows,
                kernels.attend,
                (rows, config.n_head),
                *(self._rows, self._queries, cache, self._mixed),
                **self._cache_shape,
                WINDOW=config.block_size,
                BLOCK=min(BLOCK_RING, power(self._cache_shape["RING"])),
                BLOCK_SIZE=power(config.head_size),
                num_warps=RING_WARPS,
            )
            self._linear(rows, f"{block}.attention.output", self._mixed, self._x, add=True)
            activation = ACTIVATIONS[config.activation]
            self._linear(rows, f"{block}.mlp.expand", self._x, self._hidden, f"{block}.norm_mlp", activation)
            self._linear(rows, f"{block}.mlp.output", self._hidden, self._x, add=True)
        self._linear(rows, "tokens", self._x, self._logits, "norm", scale=config.logit_scale)

    def draw(self, rows: int, width: int) -> None:
        """Start drawing in the first rows, of streams that have `width` rows each."""
        buffers = (self._rows, self._streams, self._logits, self._ids, self._told)
        self._start(rows, drawing.draw, (rows,), *buffers, rows, WIDTH=width, **self._drawing())

    def advance(self, rows: int, width: int) -> None:
        """Start taking what was drawn, and filling those rows for the next step."""
        self._start(
            rows,
            drawing.advance,
            (rows // width,),
            *(self._rows, self._streams, self._ids, self._counts, *self._table[:4], rows),
            WIDTH=width,
            SIZE=len(self._table.keys),
            PROBES=self._table.probes,
            CONTEXTS=len(self._table.powers),
            KEYS=(self.config.vocab_size + 1) ** self._table.longest,
            NATS=1 / UNITS_PER_NAT,
            **self._drawing(),
        )

    def _drawing(self) -> dict[str, Any]:
        vocab_size = self.config.vocab_size
        block = min(MAX_DRAWN, triton.next_power_of_2(vocab_size))
        return {"STRIDE": self._cache_shape["STRIDE"], "VOCABULARY": vocab_size, "BLOCK": block}

    def _linear(
        self,
        rows: int,
        name: str,
        x: Tensor,
        out: Tensor,
        norm: str | None = None,
        activation: int = 0,
        add: bool = False,
        scale: float = 1.0,
    ) -> None:
        count, width = self._weights[f"{name}.weight"].shape
        self._start(
            rows,
            kernels.linear,
            (rows // BLOCK_M, triton.cdiv(count, BLOCK_N)),
            *(x, *self._layer(name), *self._layer(norm), out),
            N=count,
            K=width,
            ACTIVATION=activation,
            ADD=add,
            SCALE=scale,
            BLOCK_N=BLOCK_N,
            **self._product(name, norm, width, BLOCK_N),
        )

    def _start(self, rows: int, kernel: Any, grid: tuple[int, ...], *buffers: Any, **constants: Any) -> None:
        early = self._hopper and rows <= EARLY_ROWS
        if early:
            constants["launch_pdl"] = True
        kernel[grid](*buffers, EARLY=early, **constants)

    def _layer(self, name: str | None) -> tuple[Tensor, Tensor]:
        """A weight and a bias; any tensor for one that is not there, and will not be read."""
        return self._weights.get(f"{name}.weight", self._x), self._weights.get(f"{name}.bias", self._x)

    def _product(self, name: str, norm: str | None, width: int, columns: int) -> dict[str, Any]:
        """What kernels of products are compiled for."""
        block = min(BLOCK_K, max(16, triton.next_power_of_2(width)))
        while columns * block * self._cache.itemsize > 2 * STAGE_BYTES and block > 16:
            block //= 2
        wide = columns * block * self._cache.itemsize > STAGE_BYTES
        return {
            "BIAS": f"{name}.bias" in self._weights,
            "NORM": NORMS[self.config.norm] if norm else 0,
            "NORM_BIAS": f"{norm}.bias" in self._weights,
            "BLOCK_M": BLOCK_M,
            "BLOCK_K": block,
            "BLOCK_NORM": triton.next_power_of_2(width),
            "STAGES": STAGES // 2 if wide else STAGES,
            "num_warps": WARPS,
        }

    def _fill(self, fields: Tensor, values: NDArray[np.int64], size: int) -> None:
        """Write values (n, fields) to the device, and to the rest of `size` that there is nothing to do."""
        host = self._host[id(fields)]
        host.numpy()[:, : len(values)] = values.T
        host[:, len(values) : size] = 0
        host[0, len(values) : size] = -1
        fields.copy_(host, non_blocking=True)

    def _to_host(self, *parts: tuple[Tensor, int]) -> list[Tensor]:
        """The beginning of each buffer."""
        copies = [self._host[id(buffer)][:count] for buffer, count in parts]
        for copy, (buffer, count) in zip(copies, parts, strict=True):
            copy.copy_(buffer[:count], non_blocking=True)
        self.wait()
        return copies
