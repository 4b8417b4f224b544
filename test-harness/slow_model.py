"""Writes a LLaMA with random weights as GGUF: a real model that is slow enough to be caught mid-stream.

The tiny model answers faster than a test can cancel a task or kill a replica. This one reads 190 MB for
every token, so the machine's memory sets its speed (50 tokens per second on one thread at 9 GB/s); fewer
layers or a smaller width make it faster. It never ends by itself, so a stream is as long as its
`max_tokens`. It prints printable ASCII only.

The same arguments give the same bytes on every machine, so its sha256 can stand in a test.

    python test-harness/slow_model.py build/slow.gguf
    python test-harness/slow_model.py build/small.gguf --hidden 256 --layers 4 --ctx 1024
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter, LlamaFileType, TokenType
from gguf.quants import quantize
from numpy.typing import NDArray

HEAD_WIDTH = 64
RMS_EPSILON = 1e-5

SPECIALS = ("<s>", "</s>", "<pad>", "<|im_start|>", "<|im_end|>")
BOS, EOS, PAD = 0, 1, 2
# A loader insists on merges. These few are real ones, so that an event may carry more than one byte.
MERGES = (("t", "h"), ("th", "e"), ("i", "n"), ("e", "r"), ("a", "n"), ("\u0120", "a"), ("\u0120", "the"))
SPACE = "\u0120"
CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

# Spread of the logits: text stays varied at temperature 1 and is not uniform noise either.
LOGIT_SPREAD = 2.5
# Tokens that must not be printed stand this far below the mean of the others.
FORBIDDEN_LOGIT = -60.0

Tensor = NDArray[np.float32] | NDArray[np.float16]
Matrix = NDArray[np.float16]


@dataclass(frozen=True, slots=True)
class Shape:
    """What decides the bytes of the model."""

    hidden: int = 1024
    layers: int = 8
    ctx: int = 4096
    seed: int = 7
    #: The same weights in 8 bits: close to the others and not the same numbers.
    q8: bool = False

    def __post_init__(self) -> None:
        if self.hidden < 128 or self.hidden % 128:
            raise ValueError(f"`hidden` must be a multiple of 128: {self.hidden}")
        if self.layers < 1 or self.ctx < 1:
            raise ValueError(f"`layers` and `ctx` must be at least 1: {self.layers}, {self.ctx}")

    @property
    def heads(self) -> int:
        return self.hidden // HEAD_WIDTH

    @property
    def kv_heads(self) -> int:
        return self.heads // 2

    @property
    def ffn(self) -> int:
        return self.hidden * 11 // 4


@dataclass(frozen=True, slots=True)
class Written:
    """What was written."""

    path: str
    sha256: str
    bytes: int
    parameters: int


def byte_alphabet() -> list[str]:
    """The 256 characters that stand for bytes in a `gpt2` vocabulary, in the order of the bytes."""
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    shifted = iter(range(256, 512))
    return [chr(byte) if byte in printable else chr(next(shifted)) for byte in range(256)]


def vocabulary() -> list[str]:
    """Specials, bytes, merged pieces: the position is the token's number."""
    return [*SPECIALS, *byte_alphabet(), *(left + right for left, right in MERGES)]


def may_be_printed(token: str) -> bool:
    """Printable ASCII only. The end of text is not: a stream must last until its `max_tokens`."""
    return token not in SPECIALS and all(char == SPACE or "!" <= char <= "~" for char in token)


class _Weights:
    """Draws the tensors in a fixed order from one seeded generator."""

    def __init__(self, seed: int) -> None:
        self._generator = np.random.Generator(np.random.PCG64(seed))

    def normal(self, rows: int, columns: int, spread: float) -> Matrix:
        drawn = self._generator.standard_normal((rows, columns), dtype=np.float32)
        drawn *= np.float32(spread)
        return drawn.astype(np.float16)

    def residual(self, rows: int, columns: int, spread: float) -> Matrix:
        """A matrix whose output joins the residual stream; component 0 of that stream stays as it is."""
        drawn = self.normal(rows, columns, spread)
        drawn[0] = 0.0
        return drawn


def write(shape: Shape, path: Path) -> Written:
    """Writes the model to `path` and returns its sha256 and sizes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = GGUFWriter(path, "llama")
    _add_metadata(writer, shape)
    tensors = _tensors(shape)
    for name, tensor in tensors:
        _add_tensor(writer, name, tensor, q8=shape.q8)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    parameters = sum(tensor.size for _, tensor in tensors)
    return Written(path=str(path), sha256=sha256, bytes=path.stat().st_size, parameters=parameters)


def _add_tensor(writer: GGUFWriter, name: str, tensor: Tensor, *, q8: bool) -> None:
    if not q8 or tensor.ndim == 1:
        writer.add_tensor(name, tensor)
        return
    kind = GGMLQuantizationType.Q8_0
    writer.add_tensor(name, quantize(tensor.astype(np.float32), kind), raw_dtype=kind)


def _add_metadata(writer: GGUFWriter, shape: Shape) -> None:
    writer.add_name(f"slow-{shape.hidden}x{shape.layers}")
    writer.add_description("random weights: prints noise at the speed of its size")
    writer.add_context_length(shape.ctx)
    writer.add_embedding_length(shape.hidden)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.ffn)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_rope_dimension_count(HEAD_WIDTH)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(RMS_EPSILON)
    writer.add_file_type(LlamaFileType.MOSTLY_Q8_0 if shape.q8 else LlamaFileType.MOSTLY_F16)
    _add_tokenizer(writer)


def _add_tokenizer(writer: GGUFWriter) -> None:
    tokens = vocabulary()
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([TokenType.CONTROL if token in SPECIALS else TokenType.NORMAL for token in tokens])
    writer.add_token_merges([f"{left} {right}" for left, right in MERGES])
    writer.add_bos_token_id(BOS)
    writer.add_eos_token_id(EOS)
    writer.add_pad_token_id(PAD)
    writer.add_add_bos_token(True)
    writer.add_chat_template(CHAT_TEMPLATE)


def _tensors(shape: Shape) -> list[tuple[str, Tensor]]:
    weights = _Weights(shape.seed)
    tokens = vocabulary()
    embedding = weights.normal(len(tokens), shape.hidden, 1.0)
    # Component 0 of the residual stream is constant: it is the bias that the architecture lacks.
    embedding[:, 0] = 1.0
    tensors: list[tuple[str, Tensor]] = [
        ("token_embd.weight", embedding),
        ("output_norm.weight", np.ones(shape.hidden, np.float32)),
        ("output.weight", _output_matrix(weights, shape, tokens)),
    ]
    for layer in range(shape.layers):
        tensors += _layer_tensors(weights, shape, f"blk.{layer}.")
    return tensors


def _output_matrix(weights: _Weights, shape: Shape, tokens: Sequence[str]) -> Matrix:
    output = weights.normal(len(tokens), shape.hidden, LOGIT_SPREAD / np.sqrt(shape.hidden))
    output[:, 0] = 0.0
    for number, token in enumerate(tokens):
        if not may_be_printed(token):
            output[number] = 0.0
            # Every layer adds about one to the square of the stream's scale, by which the norm divides.
            output[number, 0] = FORBIDDEN_LOGIT * np.sqrt(1.0 + 4.0 * shape.layers)
    return output


def _layer_tensors(weights: _Weights, shape: Shape, prefix: str) -> list[tuple[str, Tensor]]:
    hidden, ffn = shape.hidden, shape.ffn
    key_width = shape.kv_heads * HEAD_WIDTH
    wide = 1.5 / np.sqrt(hidden)
    plain = 1.0 / np.sqrt(hidden)
    return [
        (f"{prefix}attn_norm.weight", np.ones(hidden, np.float32)),
        (f"{prefix}ffn_norm.weight", np.ones(hidden, np.float32)),
        (f"{prefix}attn_q.weight", weights.normal(hidden, hidden, wide)),
        (f"{prefix}attn_k.weight", weights.normal(key_width, hidden, wide)),
        (f"{prefix}attn_v.weight", weights.normal(key_width, hidden, wide)),
        (f"{prefix}attn_output.weight", weights.residual(hidden, hidden, wide)),
        (f"{prefix}ffn_gate.weight", weights.normal(ffn, hidden, plain)),
        (f"{prefix}ffn_up.weight", weights.normal(ffn, hidden, plain)),
        (f"{prefix}ffn_down.weight", weights.residual(hidden, ffn, 1.0 / np.sqrt(ffn))),
    ]


def main() -> None:
    default = Shape()
    parser = argparse.ArgumentParser(description="Write a slow model with random weights as GGUF.")
    parser.add_argument("out", type=Path, help="the GGUF file to write")
    parser.add_argument("--hidden", type=int, default=default.hidden, help="width, a multiple of 128")
    parser.add_argument("--layers", type=int, default=default.layers)
    parser.add_argument("--ctx", type=int, default=default.ctx, help="context in tokens")
    parser.add_argument("--seed", type=int, default=default.seed)
    parser.add_argument("--q8", action="store_true", help="weights of 8 bits")
    arguments = parser.parse_args()
    shape = Shape(arguments.hidden, arguments.layers, arguments.ctx, arguments.seed, arguments.q8)
    written = write(shape, arguments.out)
    print(json.dumps({name: getattr(written, name) for name in Written.__slots__}))


if __name__ == "__main__":
    main()
