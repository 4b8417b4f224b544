"""The network: a LLaMA with rotary positions, SwiGLU and tied embeddings, small enough for two CPU cores.

Its parameters carry the names that the Hugging Face format uses, so an export is a copy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True, slots=True)
class Config:
    """The shape of the network."""

    vocabulary: int = 1024
    width: int = 160
    layers: int = 4
    heads: int = 5
    ffn: int = 448
    ctx: int = 512
    rope_base: float = 500_000.0
    epsilon: float = 1e-5

    @property
    def head_width(self) -> int:
        return self.width // self.heads

    def rotation_speeds(self) -> Tensor:
        """Radians per position of each pair of components of a head, fastest first."""
        exponent = torch.arange(0, self.head_width, 2).float() / self.head_width
        return 1.0 / self.rope_base**exponent


@dataclass(frozen=True, slots=True)
class Targets:
    """The positions of a flattened batch that count, what should stand there, and how much each weighs."""

    positions: Tensor
    tokens: Tensor
    weights: Tensor


class Norm(nn.Module):
    """RMS norm with a learnt scale."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(config.width))
        self._epsilon = config.epsilon

    def forward(self, x: Tensor) -> Tensor:
        return functional.rms_norm(x, self.weight.shape, self.weight, self._epsilon)


class Attention(nn.Module):
    def __init__(self, config: Config) -> None:
        super().__init__()
        self._heads, self._head_width = config.heads, config.head_width
        width = config.width
        self.q_proj = nn.Linear(width, width, bias=False)
        self.k_proj = nn.Linear(width, width, bias=False)
        self.v_proj = nn.Linear(width, width, bias=False)
        self.o_proj = nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        batch, length, width = x.shape
        # One product for the three is faster than three on a CPU.
        stacked = torch.cat([self.q_proj.weight, self.k_proj.weight, self.v_proj.weight])
        split = functional.linear(x, stacked).view(batch, length, 3, self._heads, self._head_width)
        query, key, value = split.permute(2, 0, 3, 1, 4).unbind(0)
        query, key = (rotated(part, cos, sin).to(value.dtype) for part in (query, key))
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        joined: Tensor = self.o_proj(mixed.transpose(1, 2).reshape(batch, length, width))
        return joined


class FeedForward(nn.Module):
    def __init__(self, config: Config) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.width, config.ffn, bias=False)
        self.up_proj = nn.Linear(config.width, config.ffn, bias=False)
        self.down_proj = nn.Linear(config.ffn, config.width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.down_proj(functional.silu(self.gate_proj(x)) * self.up_proj(x))
        return out


class Layer(nn.Module):
    def __init__(self, config: Config) -> None:
        super().__init__()
        self.input_layernorm = Norm(config)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = Norm(config)
        self.mlp = FeedForward(config)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), cos, sin)
        out: Tensor = x + self.mlp(self.post_attention_layernorm(x))
        return out


class TinyLlama(nn.Module):
    """Token numbers in, hidden states out; the embedding is also the output matrix."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocabulary, config.width)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))
        self.norm = Norm(config)
        angles = torch.outer(torch.arange(config.ctx).float(), config.rotation_speeds()).repeat(1, 2)
        self._cos, self._sin = angles.cos(), angles.sin()

    def forward(self, tokens: Tensor) -> Tensor:
        x: Tensor = self.embed_tokens(tokens)
        length = tokens.shape[1]
        for layer in self.layers:
            x = layer(x, self._cos[:length], self._sin[:length])
        out: Tensor = self.norm(x)
        return out

    def attention(self, layer: int) -> Attention:
        part = self.layers[layer].self_attn
        if not isinstance(part, Attention):
            raise TypeError(f"layer {layer} has no attention: {type(part).__name__}")
        return part

    def logits(self, hidden: Tensor) -> Tensor:
        return functional.linear(hidden, self.embed_tokens.weight).float()

    def loss(self, tokens: Tensor, targets: Targets) -> Tensor:
        """The weighted cross entropy at the positions that count."""
        hidden = self(tokens).reshape(-1, self.config.width)[targets.positions]
        each = functional.cross_entropy(self.logits(hidden), targets.tokens, reduction="none")
        return (each * targets.weights).sum() / targets.weights.sum()

    @torch.no_grad()
    def continue_greedily(self, prompt: Sequence[int], end: int, most: int = 160) -> list[int]:
        """The likeliest continuation. Recomputes everything per token: for comparisons, not for serving."""
        tokens = list(prompt)
        while len(tokens) < min(self.config.ctx, len(prompt) + most):
            hidden = self(torch.tensor([tokens]))[0, -1]
            best = int(self.logits(hidden).argmax())
            if best == end:
                break
            tokens.append(best)
        return tokens[len(prompt) :]


def rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions, the first half of a head paired with the second."""
    first, second = x.chunk(2, -1)
    return x * cos + torch.cat([-second, first], -1) * sin
