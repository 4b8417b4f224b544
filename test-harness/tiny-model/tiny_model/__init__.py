"""Makes the tiny model: data, tokenizer, network, training, export and evaluation."""
