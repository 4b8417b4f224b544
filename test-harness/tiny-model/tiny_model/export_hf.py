"""Writes a checkpoint as a Hugging Face folder (safetensors, tokenizer, chat template) for vLLM and others.

    python -m tiny_model.export_hf --checkpoint $OUT/run/checkpoint.pt --out $OUT/hf

The rows stay in the order of the training, which is the one that this format expects.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from .export_gguf import weights
from .model import Config
from .tokenizer import (
    BOS,
    CHAT_TEMPLATE,
    EOS,
    FIRST_WORD,
    PAD,
    SPECIALS,
    UNUSED_MERGE,
    Tokenizer,
    byte_characters,
)
from .train import load

Document = dict[str, Any]
SPECIAL_NUMBERS = {"bos_token_id": BOS, "eos_token_id": EOS, "pad_token_id": PAD}


def config_document(config: Config) -> Document:
    """`config.json`."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": config.vocabulary,
        "hidden_size": config.width,
        "intermediate_size": config.ffn,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.heads,
        "head_dim": config.head_width,
        "hidden_act": "silu",
        "max_position_embeddings": config.ctx,
        "rms_norm_eps": config.epsilon,
        # Older and newer readers look for the base in different places; the same holds for the number type.
        "rope_theta": config.rope_base,
        "rope_parameters": {"rope_theta": config.rope_base, "rope_type": "default"},
        "tie_word_embeddings": True,
        "attention_bias": False,
        "mlp_bias": False,
        "torch_dtype": "float16",
        "dtype": "float16",
        **SPECIAL_NUMBERS,
    }


def tokenizer_document(tokenizer: Tokenizer) -> Document:
    """`tokenizer.json`: bytes are the model, words are added tokens, so no word is built from pieces."""
    characters = byte_characters()
    merge = [characters[byte] for byte in UNUSED_MERGE]
    vocabulary = {name: number for number, name in enumerate((*SPECIALS, *characters, "".join(merge)))}
    start = {"SpecialToken": {"id": "<s>", "type_id": 0}}
    first, second = ({"Sequence": {"id": name, "type_id": place}} for place, name in enumerate("AB"))
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            *(_added(number, text, special=True) for number, text in enumerate(SPECIALS)),
            *(_added(FIRST_WORD + place, word, special=False) for place, word in enumerate(tokenizer.words)),
        ],
        "normalizer": None,
        "pre_tokenizer": _byte_level(),
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [start, first],
            "pair": [start, first, second],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [BOS], "tokens": ["<s>"]}},
        },
        "decoder": _byte_level(),
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": vocabulary,
            "merges": [merge],
        },
    }


def _added(number: int, text: str, *, special: bool) -> Document:
    plain = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": number, "content": text, **plain, "special": special}


def _byte_level() -> Document:
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": True}


def tokenizer_settings(config: Config) -> Document:
    """`tokenizer_config.json`."""
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": SPECIALS[BOS],
        "eos_token": SPECIALS[EOS],
        "pad_token": SPECIALS[PAD],
        "clean_up_tokenization_spaces": False,
        "model_max_length": config.ctx,
        "model_input_names": ["input_ids", "attention_mask"],
        "chat_template": CHAT_TEMPLATE,
    }


def write(checkpoint: Path, out: Path) -> None:
    """Writes every file of the folder."""
    model, tokenizer = load(checkpoint)
    out.mkdir(parents=True, exist_ok=True)
    named = {f"model.{name}": value.astype(np.float16) for name, value in weights(model).items()}
    save_file(named, out / "model.safetensors", metadata={"format": "pt"})
    documents = {
        "config.json": config_document(model.config),
        "generation_config.json": SPECIAL_NUMBERS,
        "tokenizer.json": tokenizer_document(tokenizer),
        "tokenizer_config.json": tokenizer_settings(model.config),
    }
    for name, document in documents.items():
        (out / name).write_text(json.dumps(document, ensure_ascii=False, indent=1), encoding="utf-8")
    (out / "chat_template.jinja").write_text(CHAT_TEMPLATE, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description="Write a checkpoint as a Hugging Face folder.")
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    write(arguments.checkpoint, arguments.out)
    print(arguments.out)


if __name__ == "__main__":
    main()
