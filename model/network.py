"""The whole network: nanoGPT's GPT-2 and its modern variant, chosen by `GPTConfig`.

Shapes: B sequences (or slots), T positions, C = n_embd, H heads of size D, V = vocab_size, W = window.
Knows nothing of sampling, of files, or of who calls it.
"""

import math
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.config import RMS_EPSILON, ROTARY_BASE, GPTConfig


class LayerCache(Protocol):
    """Where attention stores keys and values, and reads those of earlier positions."""

    def update(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Store `key` and `value` (B, H, T, D); return all that may be attended to (B, H, W, D)."""


def rotary_angles(positions: Tensor, head_size: int) -> tuple[Tensor, Tensor]:
    """Cosine and sine for rotary position embeddings (RoFormer, arXiv:2104.09864).

    The angle is computed in float64 on the CPU: in float32 it would be off by 0.004 rad at position 100,000.

    Args:
        positions: (B, T) or (T,) whole numbers, on the CPU.
    Returns:
        Two float32 CPU tensors (B, 1, T, D/2), or (T, D/2), to broadcast over heads.
    """
    frequency = ROTARY_BASE ** -(torch.arange(0, head_size, 2, dtype=torch.float64) / head_size)
    angle = positions.double()[..., None] * frequency
    if angle.ndim == 3:
        angle = angle[:, None]
    return angle.cos().float(), angle.sin().float()


def rotate(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Rotate each pair (i, i + D/2) of `x` (B, H, T, D) by its position's angle, in float32."""
    a, b = x.chunk(2, dim=-1)  # each (B, H, T, D/2)
    return torch.cat((a * cosine - b * sine, b * cosine + a * sine), dim=-1).to(x.dtype)


class Linear(nn.Linear):
    """PyTorch's, but on the meta device no weights are drawn: for that PyTorch would import its compiler (4 s)."""

    def reset_parameters(self) -> None:
        if not self.weight.is_meta:
            super().reset_parameters()


class Embedding(nn.Embedding):
    """PyTorch's, with the same exception as `Linear`."""

    def reset_parameters(self) -> None:
        if not self.weight.is_meta:
            super().reset_parameters()


class Norm(nn.Module):
    """LayerNorm with an optional bias, or RMSNorm without parameters."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.kind = config.norm
        self.shape = (config.n_embd,)
        if self.kind == "layernorm":
            self.weight = nn.Parameter(torch.ones(config.n_embd))
            self.bias = nn.Parameter(torch.zeros(config.n_embd)) if config.bias else None

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "rmsnorm":
            return F.rms_norm(x, self.shape, eps=RMS_EPSILON)
        return F.layer_norm(x, self.shape, self.weight, self.bias, 1e-5)


class Attention(nn.Module):
    """Causal multi-head self-attention; query, key and value matrices are kept apart (for Muon)."""

    def __init__(self, config: GPTConfig, dropout: float, attention_dropout: float) -> None:
        super().__init__()
        self.config = config
        self.attention_dropout = attention_dropout
        self.query = Linear(config.n_embd, config.n_embd, bias=config.bias)
        self.key = Linear(config.n_embd, config.n_embd, bias=config.bias)
        self.value = Linear(config.n_embd, config.n_embd, bias=config.bias)
        self.output = Linear(config.n_embd, config.n_embd, bias=config.bias)
        self.dropout = nn.Dropout(dropout)

    def heads(self, x: Tensor) -> Tensor:
        """(B, T, C) → (B, H, T, D)."""
        return x.view(*x.shape[:-1], self.config.n_head, self.config.head_size).transpose(1, 2)

    def forward(
        self,
        x: Tensor,
        rotary: tuple[Tensor, Tensor] | None,
        mask: Tensor | None,
        cache: LayerCache | None,
    ) -> Tensor:
        query = self.heads(self.query(x))  # (B, H, T, D)
        key = self.heads(self.key(x))
        value = self.heads(self.value(x))
        if rotary is not None:
            query = rotate(query, *rotary)
            key = rotate(key, *rotary)
        if self.config.qk_norm:  # without weights, so its order with the rotation does not matter
            size = (self.config.head_size,)
            query = F.rms_norm(query, size, eps=RMS_EPSILON)
            key = F.rms_norm(key, size, eps=RMS_EPSILON)
        if cache is not None:
            key, value = cache.update(key, value)  # (B, H, W, D)
        attended = F.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=mask,
            dropout_p=self.attention_dropout if self.training else 0.0,
            is_causal=mask is None,
        )  # (B, H, T, D)
        projected: Tensor = self.output(attended.transpose(1, 2).flatten(2))  # (B, T, C)
        dropped: Tensor = self.dropout(projected)
        return dropped


class MLP(nn.Module):
    """The position-wise network: four times as wide inside; GELU, or squared ReLU (arXiv:2109.08668)."""

    def __init__(self, config: GPTConfig, dropout: float) -> None:
        super().__init__()
        self.activation = config.activation
        self.expand = Linear(config.n_embd, 4 * config.n_embd, bias=config.bias)
        self.output = Linear(4 * config.n_embd, config.n_embd, bias=config.bias)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.expand(x)  # (B, T, 4C)
        hidden = F.relu(hidden).square() if self.activation == "relu2" else F.gelu(hidden)
        dropped: Tensor = self.dropout(self.output(hidden))  # (B, T, C)
        return dropped


class Block(nn.Module):
    """One layer: attention and MLP, each reads a normalised copy of the residual and is added to it."""

    def __init__(self, config: GPTConfig, dropout: float, attention_dropout: float) -> None:
        super().__init__()
        self.norm_attention = Norm(config)
        self.attention = Attention(config, dropout, attention_dropout)
        self.norm_mlp = Norm(config)
        self.mlp = MLP(config, dropout)

    def forward(
        self,
        x: Tensor,
        rotary: tuple[Tensor, Tensor] | None,
        mask: Tensor | None,
        cache: LayerCache | None,
    ) -> Tensor:
        x = x + self.attention(self.norm_attention(x), rotary, mask, cache)
        residual: Tensor = x + self.mlp(self.norm_mlp(x))
        return residual


class GPT(nn.Module):
    """Token ids in, logits out; the output matrix is the token embedding."""

    def __init__(
        self,
        config: GPTConfig,
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
        embedding_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.config = config
        self.logit_scale = config.logit_scale
        self.tokens = Embedding(config.vocab_size, config.n_embd)
        if config.positions == "learned":
            self.positions = Embedding(config.block_size, config.n_embd)
        self.dropout = nn.Dropout(embedding_dropout)
        self.blocks = nn.ModuleList(Block(config, dropout, attention_dropout) for _ in range(config.n_layer))
        self.norm = Norm(config)
        if not self.tokens.weight.is_meta:
            self.initialise()

    def initialise(self) -> None:
        """Draw weights as GPT-2 does: normal 0.02, output projections divided by √(2·n_layer)."""
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            elif parameter.ndim == 2:
                scale = math.sqrt(2 * self.config.n_layer) if ".output." in name else 1.0
                nn.init.normal_(parameter, std=0.02 / scale)

    def forward(
        self,
        ids: Tensor,
        positions: Tensor | None = None,
        mask: Tensor | None = None,
        caches: list[LayerCache] | None = None,
        rotary: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """Predict the character after each of `ids`.

        Args:
            ids: (B, T) token ids.
            positions: (B, T) or (T,) position of each id, on the CPU; 0, 1, … when absent.
            mask: (B, 1, T, W) True where a position may be attended to; causal when absent.
            caches: one per layer, to read and write keys and values.
            rotary: `rotary_angles` of the positions, on the network's device; computed when absent.
        Returns:
            Logits (B, T, V).
        """
        if positions is None:
            positions = torch.arange(ids.shape[-1])
        x = self.tokens(ids)  # (B, T, C)
        if self.config.positions == "learned":
            x = x + self.positions(positions.to(x.device))
        elif rotary is None:
            cosine, sine = rotary_angles(positions, self.config.head_size)
            rotary = cosine.to(x.device), sine.to(x.device)
        x = self.dropout(x)
        for layer, block in enumerate(self.blocks):
            x = block(x, rotary, mask, caches[layer] if caches else None)
        logits = F.linear(self.norm(x), self.tokens.weight)  # (B, T, V)
        return logits if self.training or self.logit_scale == 1.0 else logits * self.logit_scale
