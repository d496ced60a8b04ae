"""One step of all rows on a GPU: its memory, and the launches of its kernels in their order.

All buffers stay where they are for the life of a `Step`, since a captured graph holds their addresses. Knows
nothing of graphs, slots' lengths and requests.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import triton
from numpy.typing import NDArray
from torch import Tensor

from model.backends.cuda import drawing, kernels
from model.backends.cuda.table import Table
from model.config import ROTARY_BASE
from model.device import Numerics
from model.network import GPT
from model.sampling.ngram_draft import UNITS_PER_NAT
from model.sampling.sampler import Logits

# Sums are grouped by these, so they are constants, the same for any number of rows.
BLOCK_M = 16  # rows of a product's program
BLOCK_N = 32  # columns of it
MAX_BLOCK_K = 64  # elements along K that it multiplies at a time
MIN_BLOCK = 16  # the least that a product of Triton's takes along an axis
LINEAR_WARPS = 2
BLOCK_RING = 64  # places of a ring that attention looks at together
ATTENTION_WARPS = 2

RING_MULTIPLE = 8  # each layer's keys begin at 16 bytes for any number of slots: else sums are grouped otherwise
MAX_EARLY_LAUNCH_ROWS = 128  # with more, launching a kernel before the last one has ended does not pay
PREFETCH_STAGES = 4  # blocks of a product's weights that are being loaded while others are multiplied
PREFETCH_BLOCK_BYTES = (
    16384  # of one such block; wider blocks are fewer and smaller, so that shared memory holds them
)
MAX_DRAW_BLOCK = 4096  # ids that a drawing program looks at together
NORMS = {"rmsnorm": kernels.RMS_NORM.value, "layernorm": kernels.LAYER_NORM.value}
ACTIVATIONS = {"relu2": kernels.RELU2.value, "gelu": kernels.GELU.value}


@dataclass(frozen=True)
class MirroredBuffer:
    """A buffer of the device, and its copy in page-locked memory of the host, by which data are transferred."""

    device: Tensor
    host: Tensor


class Step:
    """Weights, cache and buffers of a network on a GPU, and the kernels that compute with them.

    Args:
        slots: of the cache.
        chunk: ids of one slot in a step at most.
        max_rows: in a step, of padding too; as any number of rows here a multiple of `BLOCK_M`.
        max_steps: that are drawn between two calls of `read_drawn`.
        table: of the draft.
    """

    def __init__(
        self,
        network: GPT,
        numerics: Numerics,
        slots: int,
        chunk: int,
        max_rows: int,
        max_steps: int,
        table: Table,
    ) -> None:
        config = network.config
        self.config = config
        self.device = numerics.torch_device
        self._table = table
        self._ring_size = config.block_size
        if config.positions == "rotary":
            self._ring_size += chunk  # so that the last id of a chunk overwrites nothing in the first one's window
        self._ring_size += -self._ring_size % RING_MULTIPLE
        self._cache = self._zeros(
            config.n_layer, 2, slots, config.n_head, self._ring_size, config.head_size, dtype=numerics.torch_dtype
        )
        self._weights = self._device_weights(network, numerics)
        exponents = torch.arange(0, config.head_size, 2, dtype=torch.float64) / config.head_size
        self._frequencies = (ROTARY_BASE**-exponents).to(self.device)
        self._cosines, self._sines = self._zeros(2, max_rows, len(exponents))
        self._x = self._zeros(max_rows, config.n_embd)  # the residual stream
        self._queries = self._zeros(max_rows, config.n_embd)
        self._attended = self._zeros(max_rows, config.n_embd, dtype=numerics.torch_dtype)
        self._mlp_hidden = self._zeros(max_rows, 4 * config.n_embd, dtype=numerics.torch_dtype)
        self._rows = self._mirrored(kernels.ROW_FIELDS, max_rows, dtype=torch.int64)
        self._sequences = self._mirrored(drawing.SEQUENCE_FIELDS, max_rows, dtype=torch.int64)
        self._logits = self._mirrored(max_rows, config.vocab_size)
        self._ids = self._mirrored(max_steps * max_rows, dtype=torch.int32)
        self._counts = self._mirrored(max_steps * max_rows, dtype=torch.int32)
        self._drawn_logits = self._mirrored(max_steps * max_rows, config.vocab_size)
        # Programmatic dependent launch came with compute capability 9.0.
        self._can_launch_early = self.device.type == "cuda" and torch.cuda.get_device_capability(self.device) >= (
            9,
            0,
        )
        self._cache_constants: dict[str, Any] = {
            "FIELD_STRIDE": max_rows,
            "SLOTS": slots,
            "HEADS": config.n_head,
            "HEAD_SIZE": config.head_size,
            "RING": self._ring_size,
        }

    def set_rows(self, rows: NDArray[np.int64], num_rows: int) -> None:
        """Set what to compute: `rows` (n, ROW_FIELDS), and padding up to `num_rows`."""
        self._set_fields(self._rows, rows, num_rows)

    def set_sequences(self, sequences: NDArray[np.int64], num_sequences: int) -> None:
        """Set what draws: `sequences` (n, SEQUENCE_FIELDS), and padding up to `num_sequences`."""
        self._set_fields(self._sequences, sequences, num_sequences)

    def read_logits(self, num_rows: int) -> Logits:
        """Wait for the step; return the logits (n, V) of its first rows."""
        self._start_copy(self._logits, num_rows)
        self.synchronize()
        return self._logits.host[:num_rows].numpy().copy()

    def read_drawn(self, steps: int, num_rows: int) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        """Wait for steps of `num_rows` rows; return what was drawn in them, valid until the next call.

        Returns:
            ids (steps, rows), how many of them each sequence has accepted (steps, rows), and the logits that each
            id was drawn from (steps, rows, V).
        """
        count = steps * num_rows
        for buffer in (self._ids, self._counts, self._drawn_logits):
            self._start_copy(buffer, count)
        self.synchronize()
        return (
            self._ids.host[:count].numpy().reshape(steps, num_rows),
            self._counts.host[:count].numpy().reshape(steps, num_rows),
            self._drawn_logits.host[:count].numpy().reshape(steps, num_rows, -1),
        )

    def synchronize(self) -> None:
        """Wait until all that was launched is done.

        It waits for this thread's stream alone: waiting for the device would break a graph that another thread is
        capturing.
        """
        if self.device.type == "cuda":
            torch.cuda.current_stream().synchronize()

    def forward(self, rows: int) -> None:
        """Launch the network's kernels for the first `rows` rows."""
        config = self.config
        half = (config.head_size + 1) // 2
        padded_half = max(8, triton.next_power_of_2(half))  # 16 columns at least for a head's product
        self._launch(
            rows,
            kernels.embed,
            (rows,),
            self._rows.device,
            self._weights["tokens.weight"],
            self._weight("positions"),
            self._frequencies,
            self._x,
            self._cosines,
            self._sines,
            FIELD_STRIDE=self._cache_constants["FIELD_STRIDE"],
            WIDTH=config.n_embd,
            HALF=half,
            LEARNED=config.positions == "learned",
            BLOCK_WIDTH=triton.next_power_of_2(config.n_embd),
            BLOCK_HALF=triton.next_power_of_2(half),
        )
        for layer in range(config.n_layer):
            block = f"blocks.{layer}"
            cache = self._cache[layer]
            qkv = f"{block}.qkv"
            norm = f"{block}.norm_attention"
            self._launch(
                rows,
                kernels.qkv_projection,
                (rows // BLOCK_M, 3 * config.n_head),
                self._rows.device,
                self._x,
                self._weight(qkv),
                self._bias(qkv),
                self._weight(norm),
                self._bias(norm),
                self._cosines,
                self._sines,
                self._queries,
                cache,
                **self._cache_constants,
                ROTARY=config.positions == "rotary",
                QK_NORM=config.qk_norm,
                BLOCK_HALF=padded_half,
                **self._product_constants(qkv, norm, config.n_embd, 2 * padded_half),
            )
            self._launch(
                rows,
                kernels.attend,
                (rows, config.n_head),
                self._rows.device,
                self._queries,
                cache,
                self._attended,
                **self._cache_constants,
                WINDOW=config.block_size,
                BLOCK_RING=min(BLOCK_RING, triton.next_power_of_2(self._ring_size)),
                BLOCK_HEAD=triton.next_power_of_2(config.head_size),
                num_warps=ATTENTION_WARPS,
            )
            self._linear(rows, f"{block}.attention.output", self._attended, self._x, add=True)
            activation = ACTIVATIONS[config.activation]
            self._linear(rows, f"{block}.mlp.expand", self._x, self._mlp_hidden, f"{block}.norm_mlp", activation)
            self._linear(rows, f"{block}.mlp.output", self._mlp_hidden, self._x, add=True)
        self._linear(rows, "tokens", self._x, self._logits.device, "norm", scale=config.logit_scale)

    def draw(self, rows: int, rows_per_sequence: int) -> None:
        """Launch the draw of an id in each of the first `rows` rows."""
        self._launch(
            rows,
            drawing.draw,
            (rows,),
            self._rows.device,
            self._sequences.device,
            self._logits.device,
            self._ids.device,
            self._drawn_logits.device,
            rows,
            ROWS_PER_SEQUENCE=rows_per_sequence,
            **self._drawing_constants(),
        )

    def accept_and_propose(self, rows: int, rows_per_sequence: int) -> None:
        """Launch the acceptance of what the last step has drawn, and the making of the next step's rows."""
        self._launch(
            rows,
            drawing.accept_and_propose,
            (rows // rows_per_sequence,),
            self._rows.device,
            self._sequences.device,
            self._ids.device,
            self._counts.device,
            self._table.keys,
            self._table.table_rows,
            self._table.surprisal,
            self._table.powers,
            rows,
            ROWS_PER_SEQUENCE=rows_per_sequence,
            TABLE_SIZE=len(self._table.keys),
            PROBES=self._table.probes,
            CONTEXTS=len(self._table.powers),
            NUM_KEYS=(self.config.vocab_size + 1) ** self._table.max_context,
            NATS_PER_UNIT=1 / UNITS_PER_NAT,
            **self._drawing_constants(),
        )

    def _drawing_constants(self) -> dict[str, Any]:
        vocab_size = self.config.vocab_size
        return {
            "FIELD_STRIDE": self._cache_constants["FIELD_STRIDE"],
            "VOCABULARY": vocab_size,
            "BLOCK": min(MAX_DRAW_BLOCK, triton.next_power_of_2(vocab_size)),
        }

    def _linear(
        self,
        rows: int,
        name: str,
        x: Tensor,
        out: Tensor,
        norm: str | None = None,
        activation: int = kernels.NO_ACTIVATION,
        add: bool = False,
        scale: float = 1.0,
    ) -> None:
        """Launch the product of `x`, normalised by the norm of that name, and a weight; see `kernels.linear`."""
        outputs, inputs = self._weights[f"{name}.weight"].shape
        self._launch(
            rows,
            kernels.linear,
            (rows // BLOCK_M, triton.cdiv(outputs, BLOCK_N)),
            x,
            self._weight(name),
            self._bias(name),
            self._weight(norm),
            self._bias(norm),
            out,
            N=outputs,
            K=inputs,
            ACTIVATION=activation,
            ADD=add,
            SCALE=scale,
            BLOCK_N=BLOCK_N,
            **self._product_constants(name, norm, inputs, BLOCK_N),
        )

    def _product_constants(self, name: str, norm: str | None, inputs: int, block_n: int) -> dict[str, Any]:
        """Return the constants that `kernels._norm_matmul` is compiled for."""
        block_k = min(MAX_BLOCK_K, max(MIN_BLOCK, triton.next_power_of_2(inputs)))
        while block_n * block_k * self._cache.itemsize > 2 * PREFETCH_BLOCK_BYTES and block_k > MIN_BLOCK:
            block_k //= 2
        is_wide = block_n * block_k * self._cache.itemsize > PREFETCH_BLOCK_BYTES
        return {
            "BIAS": f"{name}.bias" in self._weights,
            "NORM": NORMS[self.config.norm] if norm else kernels.NO_NORM,
            "NORM_BIAS": f"{norm}.bias" in self._weights,
            "BLOCK_M": BLOCK_M,
            "BLOCK_K": block_k,
            "BLOCK_NORM": triton.next_power_of_2(inputs),
            "STAGES": PREFETCH_STAGES // 2 if is_wide else PREFETCH_STAGES,
            "num_warps": LINEAR_WARPS,
        }

    def _launch(self, rows: int, kernel: Any, grid: tuple[int, ...], *arguments: Any, **constants: Any) -> None:
        """Launch a kernel of a step of so many rows."""
        early_launch = self._can_launch_early and rows <= MAX_EARLY_LAUNCH_ROWS
        if early_launch:
            constants["launch_pdl"] = True
        kernel[grid](*arguments, EARLY_LAUNCH=early_launch, **constants)

    def _weight(self, name: str | None) -> Tensor:
        """Return a module's weight; any tensor, which will not be read, if it has none."""
        return self._weights.get(f"{name}.weight", self._x)

    def _bias(self, name: str | None) -> Tensor:
        """Return a module's bias; any tensor, which will not be read, if it has none."""
        return self._weights.get(f"{name}.bias", self._x)

    def _device_weights(self, network: GPT, numerics: Numerics) -> dict[str, Tensor]:
        """Return the network's weights by their names on the device; each layer's queries, keys and values as one.

        Matrices are in the backend's number format, and biases and weights of norms in float32.
        """
        weights: dict[str, Tensor] = {}
        for name, tensor in network.state_dict().items():
            dtype = numerics.torch_dtype if tensor.ndim == 2 else torch.float32
            weights[name] = tensor.detach().to(self.device, dtype).contiguous()
        for layer in range(self.config.n_layer):
            for kind in ("weight", "bias") if self.config.bias else ("weight",):
                names = [f"blocks.{layer}.attention.{part}.{kind}" for part in ("query", "key", "value")]
                weights[f"blocks.{layer}.qkv.{kind}"] = torch.cat([weights.pop(name) for name in names])
        return weights

    def _zeros(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.zeros(shape, dtype=dtype, device=self.device)

    def _mirrored(self, *shape: int, dtype: torch.dtype = torch.float32) -> MirroredBuffer:
        host = torch.zeros(shape, dtype=dtype, pin_memory=self.device.type == "cuda")
        return MirroredBuffer(self._zeros(*shape, dtype=dtype), host)

    def _set_fields(self, buffer: MirroredBuffer, records: NDArray[np.int64], count: int) -> None:
        """Write records (n, fields) to a buffer (fields, …) of rows or sequences, and padding up to `count`."""
        host = buffer.host
        host.numpy()[:, : len(records)] = records.T
        host[:, len(records) : count] = 0
        host[kernels.SLOT.value, len(records) : count] = -1
        buffer.device.copy_(host, non_blocking=True)

    def _start_copy(self, buffer: MirroredBuffer, count: int) -> None:
        """Start to copy a buffer's first elements to the host."""
        buffer.host[:count].copy_(buffer.device[:count], non_blocking=True)
