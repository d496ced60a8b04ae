"""The architecture of a network as a checked value. Knows nothing of tensors."""

import math
from dataclasses import dataclass
from decimal import Decimal, localcontext
from typing import Literal

from model.errors import InputError

ROTARY_BASE = 10_000.0
RMS_EPSILON = 2.0**-23  # float32's precision, in bf16 too, whose own would swamp small activations
NORM_EPSILONS = {"rmsnorm": RMS_EPSILON, "layernorm": 1e-5}
DECIMAL_DIGITS = 40  # of a power, before it is rounded to a float64


@dataclass(frozen=True)
class GPTConfig:
    """A GPT's shape and variants; the defaults are nanoGPT's.

    `norm="layernorm"` has a weight (and a bias when `bias`); `norm="rmsnorm"` has neither. `logit_scale` multiplies
    the logits outside of training (temperature scaling, arXiv:1706.04599).

    Raises:
        InputError: a value is out of range, or does not fit another; names the field.
    """

    vocab_size: int
    n_layer: int = 6
    n_head: int = 6
    n_embd: int = 384
    block_size: int = 256
    positions: Literal["learned", "rotary"] = "learned"
    norm: Literal["layernorm", "rmsnorm"] = "layernorm"
    activation: Literal["gelu", "relu2"] = "gelu"
    qk_norm: bool = False
    bias: bool = False
    logit_scale: float = 1.0

    def __post_init__(self) -> None:
        for field in ("vocab_size", "n_layer", "n_head", "n_embd", "block_size"):
            value = getattr(self, field)
            if type(value) is not int or value < 1:
                raise InputError(field, f"{value!r} is not a whole number from 1 up")
        choices_of: dict[str, tuple[str | bool, ...]] = {
            "positions": ("learned", "rotary"),
            "norm": ("layernorm", "rmsnorm"),
            "activation": ("gelu", "relu2"),
            "qk_norm": (False, True),
            "bias": (False, True),
        }
        for field, choices in choices_of.items():
            value = getattr(self, field)
            if value not in choices:
                raise InputError(field, f"{value!r} is not one of {', '.join(map(repr, choices))}")
        if type(self.logit_scale) not in (int, float) or not 0 < self.logit_scale < math.inf:
            raise InputError("logit_scale", f"{self.logit_scale!r} is not a finite number above 0")
        if self.block_size < 2:
            raise InputError("block_size", "1 leaves no context; use 2 or more")
        if self.n_embd % self.n_head:
            raise InputError("n_embd", f"{self.n_embd} is not a multiple of n_head ({self.n_head})")
        if self.positions == "rotary" and self.head_size % 2:
            raise InputError("n_embd", f"rotary positions need an even head size, not {self.head_size}")

    @property
    def head_size(self) -> int:
        """Width of one attention head."""
        return self.n_embd // self.n_head

    @property
    def rotary_frequencies(self) -> tuple[float, ...]:
        """The frequencies of rotary angles, D/2 or none: the base to the power of 0, -2/D, -4/D, ….

        They are rounded from decimal numbers of many digits: the system's own powers differ in the last bit.
        """
        size = self.head_size if self.positions == "rotary" else 0
        with localcontext(prec=DECIMAL_DIGITS):
            base = Decimal(ROTARY_BASE)
            return tuple([float(base ** Decimal(-i / size)) for i in range(0, size, 2)])

    @property
    def weight_shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each of the network's weights by its name, in the network's order.

        They are told here, since a network that computes in NumPy has no modules to ask.
        """
        width = self.n_embd
        shapes: dict[str, tuple[int, ...]] = {"tokens.weight": (self.vocab_size, width)}
        if self.positions == "learned":
            shapes["positions.weight"] = (self.block_size, width)
        for layer in range(self.n_layer):
            block = f"blocks.{layer}"
            shapes |= self._norm_shapes(f"{block}.norm_attention")
            for projection in ("query", "key", "value", "output"):
                shapes |= self._linear_shapes(f"{block}.attention.{projection}", width, width)
            shapes |= self._norm_shapes(f"{block}.norm_mlp")
            shapes |= self._linear_shapes(f"{block}.mlp.expand", 4 * width, width)
            shapes |= self._linear_shapes(f"{block}.mlp.output", width, 4 * width)
        return shapes | self._norm_shapes("norm")

    def _linear_shapes(self, name: str, outputs: int, inputs: int) -> dict[str, tuple[int, ...]]:
        shapes: dict[str, tuple[int, ...]] = {f"{name}.weight": (outputs, inputs)}
        if self.bias:
            shapes[f"{name}.bias"] = (outputs,)
        return shapes

    def _norm_shapes(self, name: str) -> dict[str, tuple[int, ...]]:
        if self.norm == "rmsnorm":
            return {}
        shapes: dict[str, tuple[int, ...]] = {f"{name}.weight": (self.n_embd,)}
        if self.bias:
            shapes[f"{name}.bias"] = (self.n_embd,)
        return shapes
