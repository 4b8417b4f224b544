"""Writes a checkpoint as GGUF for llama.cpp.

    python -m tiny_model.export_gguf --checkpoint $OUT/run/checkpoint.pt --out $OUT --quant f16

The matrices take the quantisation; the norms stay as they are.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter, LlamaFileType, TokenType
from numpy.typing import NDArray

from .model import Config, TinyLlama
from .tokenizer import BOS, CHAT_TEMPLATE, EOS, PAD, SPECIALS, UNUSED_MERGE, Tokenizer, byte_characters
from .train import load

NAME = "orchqueue-tiny-1.4m"
QUANTS = {
    "f32": (GGMLQuantizationType.F32, LlamaFileType.ALL_F32),
    "f16": (GGMLQuantizationType.F16, LlamaFileType.MOSTLY_F16),
    "q8_0": (GGMLQuantizationType.Q8_0, LlamaFileType.MOSTLY_Q8_0),
}

# Names of a layer's tensors: the network's own and the GGUF's.
LAYER_NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}

Weights = NDArray[np.float32]


def weights(model: TinyLlama) -> dict[str, Weights]:
    """Every parameter by its name, as numpy."""
    return {name: value.detach().float().numpy() for name, value in model.state_dict().items()}


def named_for_gguf(model: TinyLlama) -> dict[str, Weights]:
    """The tensors under the names and in the order of rows that llama.cpp expects."""
    own = weights(model)
    named = {"token_embd.weight": own["embed_tokens.weight"], "output_norm.weight": own["norm.weight"]}
    for layer in range(model.config.layers):
        for name, gguf_name in LAYER_NAMES.items():
            tensor = own[f"layers.{layer}.{name}.weight"]
            if gguf_name in ("attn_q", "attn_k"):
                tensor = interleaved(tensor, model.config.heads)
            named[f"blk.{layer}.{gguf_name}.weight"] = np.ascontiguousarray(tensor)
    return named


def interleaved(tensor: Weights, heads: int) -> Weights:
    """Rows of each head from halves (first, second) to pairs, which is how llama.cpp rotates them."""
    rows, columns = tensor.shape
    return tensor.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)


def write(model: TinyLlama, tokenizer: Tokenizer, path: Path, quant: str) -> None:
    """Writes the whole model to `path`."""
    kind, file_type = QUANTS[quant]
    writer = GGUFWriter(path, "llama")
    _add_shape(writer, model.config)
    writer.add_file_type(file_type)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    _add_tokenizer(writer, tokenizer)
    for name, tensor in named_for_gguf(model).items():
        if tensor.ndim == 1 or kind is GGMLQuantizationType.F32:
            writer.add_tensor(name, tensor)
        else:
            writer.add_tensor(name, gguf.quants.quantize(tensor, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_shape(writer: GGUFWriter, config: Config) -> None:
    writer.add_name(NAME)
    writer.add_description("trained from scratch on synthetic text, for haiku and small demonstrations")
    writer.add_license("Apache-2.0")
    writer.add_context_length(config.ctx)
    writer.add_embedding_length(config.width)
    writer.add_block_count(config.layers)
    writer.add_feed_forward_length(config.ffn)
    writer.add_head_count(config.heads)
    writer.add_head_count_kv(config.heads)
    writer.add_vocab_size(config.vocabulary)
    writer.add_rope_dimension_count(config.head_width)
    writer.add_rope_freq_base(config.rope_base)
    writer.add_layer_norm_rms_eps(config.epsilon)


def _add_tokenizer(writer: GGUFWriter, tokenizer: Tokenizer) -> None:
    characters = byte_characters()
    merge = [characters[byte] for byte in UNUSED_MERGE]
    plain = [*characters, "".join(merge)]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([*SPECIALS, *plain, *tokenizer.words])
    writer.add_token_types(
        [TokenType.CONTROL] * len(SPECIALS)
        + [TokenType.NORMAL] * len(plain)
        # A word of the user is found in the raw text before the bytes are, the longest first.
        + [TokenType.USER_DEFINED] * len(tokenizer.words)
    )
    writer.add_token_merges([" ".join(merge)])
    writer.add_bos_token_id(BOS)
    writer.add_eos_token_id(EOS)
    writer.add_pad_token_id(PAD)
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(False)
    writer.add_chat_template(CHAT_TEMPLATE)


def main() -> None:
    parser = argparse.ArgumentParser(description="Write a checkpoint as GGUF.")
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="folder of the GGUF file")
    parser.add_argument("--quant", choices=sorted(QUANTS), default="f16")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    path = arguments.out / f"{NAME}-{arguments.quant}.gguf"
    write(*load(arguments.checkpoint), path, arguments.quant)
    print(f"{path}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
