"""The start of the training: small outputs everywhere, and attention heads that can copy from the first step.

Copying needs two heads that find each other: one that carries the previous token along, one that looks for
the place where the present token stood before. From an ordinary start this takes hundreds of steps, because
the random output of the other parts drowns the small embeddings. So the output matrices start almost at zero,
and the first two layers start as such heads. Everything stays trainable.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .model import Config, TinyLlama

EMBEDDING_SPREAD = 0.03
MATRIX_GAIN = 0.7
OUTPUT_GAIN = 0.02

#: Component 0 of every embedding: a constant, by which a head can attend to positions alone.
CONSTANT = 0.12
PREVIOUS_HEADS = 3
INDUCTION_HEADS = 2

# How sharply the heads attend and how loudly they write; found by trying.
POSITION_GAIN = 7.2
MATCH_GAIN = 2.6
CARRY_GAIN = 0.9
COPY_GAIN = 9.0

# Pairs that turn faster tell positions apart; pairs that turn slower can match contents at any distance.
FAST, SLOW = 0.02, 0.013


@torch.no_grad()
def initialise(model: TinyLlama, seed: int) -> None:
    """Sets every parameter, the same for the same seed."""
    generator = torch.Generator().manual_seed(seed)
    width = model.config.width
    for name, parameter in model.named_parameters():
        if parameter.dim() == 1:
            nn.init.ones_(parameter)
        elif "embed_tokens" in name:
            nn.init.normal_(parameter, std=EMBEDDING_SPREAD, generator=generator)
        else:
            gain = OUTPUT_GAIN if "o_proj" in name or "down_proj" in name else MATRIX_GAIN
            nn.init.normal_(parameter, std=gain * width**-0.5, generator=generator)
    _Start(model, generator).install()


class _Start:
    """Writes the copying heads into the first two layers."""

    def __init__(self, model: TinyLlama, generator: torch.Generator) -> None:
        self._config: Config = model.config
        self._generator = generator
        self._model = model
        model.embed_tokens.weight[:, 0] = CONSTANT
        #: Scale of an embedding, by which the norm divides.
        self._scale = float(model.embed_tokens.weight.pow(2).mean(1).sqrt().mean())
        head, width = self._config.head_width, self._config.width
        #: Directions from which a token's identity is read, and where each earlier token is noted.
        self._read = self._orthonormal(head, width)
        notes = self._orthonormal(head * PREVIOUS_HEADS, width)
        self._notes = notes.view(PREVIOUS_HEADS, head, width)

    def install(self) -> None:
        for head in range(PREVIOUS_HEADS):
            self._previous_token_head(head)
        for head in range(INDUCTION_HEADS):
            self._induction_head(head)

    def _previous_token_head(self, head: int) -> None:
        """Attends `head + 1` positions back and notes the token found there."""
        attention = self._model.attention(0)
        rows = self._rows(head)
        speeds = self._config.rotation_speeds()
        fast = (speeds > FAST).float()
        turn = speeds * (head + 1)
        # The constant's rotation cancels at exactly this distance, so the score has its peak there.
        query = torch.cat([turn.cos() * fast, -turn.sin() * fast])
        key = torch.cat([fast, torch.zeros_like(fast)])
        constant = CONSTANT / self._scale
        for projection, direction in ((attention.q_proj, query), (attention.k_proj, key)):
            projection.weight[rows] *= 0.1
            projection.weight[rows, 0] = direction * POSITION_GAIN / constant
        attention.v_proj.weight[rows] = self._read
        attention.o_proj.weight[:, rows] = self._notes[head].T * self._scale * CARRY_GAIN

    def _induction_head(self, head: int) -> None:
        """Attends to the token after an earlier place that had the same two tokens, and writes it out."""
        attention = self._model.attention(1)
        rows = self._rows(head)
        slow = (self._config.rotation_speeds() < SLOW).nonzero().flatten()
        used = torch.cat([slow, slow + self._config.head_width // 2])
        size = (len(used), self._config.head_width)
        present, before = (torch.randn(size, generator=self._generator) * len(used) ** -0.5 for _ in range(2))
        query = torch.zeros(self._config.head_width, self._config.width)
        key = torch.zeros_like(query)
        query[used] = present @ self._read + before @ self._notes[0]
        key[used] = present @ self._notes[0] + before @ self._notes[1]
        attention.q_proj.weight[rows] = query * MATCH_GAIN
        attention.k_proj.weight[rows] = key * MATCH_GAIN
        identity = self._orthonormal(self._config.head_width, self._config.width)
        attention.v_proj.weight[rows] = identity
        attention.o_proj.weight[:, rows] = identity.T * self._scale * COPY_GAIN

    def _rows(self, head: int) -> slice:
        start = head * self._config.head_width
        return slice(start, start + self._config.head_width)

    def _orthonormal(self, rows: int, columns: int) -> Tensor:
        """Random directions at right angles to each other and to the constant."""
        drawn = torch.randn(columns - 1, rows, generator=self._generator)
        found: Tensor = torch.linalg.qr(drawn)[0]
        return torch.cat([torch.zeros(rows, 1), found.T], 1)
