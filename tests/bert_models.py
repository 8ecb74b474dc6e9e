"""A tiny BERT of transformers' for tests, and the folder that it is saved to."""

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BertConfig, BertModel

WORDS = ["[PAD]", "[UNK]", "red", "green", "blue", "square", "apple", "a", "of", "and"]


def saved_bert(folder, *, spread=0.0, **settings):
    """The model, and `folder` with it and a tokenizer of `WORDS`; norms and biases are random by `spread`."""
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(WORDS), hidden_size=24, num_hidden_layers=2, num_attention_heads=3,
        intermediate_size=32, max_position_embeddings=40, **settings,
    )  # fmt: skip
    model = BertModel(config, add_pooling_layer=False).eval()
    with torch.no_grad():
        for parameter in model.parameters() if spread else ():
            if parameter.ndim == 1:
                parameter += spread * torch.randn(parameter.shape)
    model.save_pretrained(folder)
    pieces = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    pieces.pre_tokenizer = pre_tokenizers.Whitespace()
    pieces.save(str(folder / "tokenizer.json"))
    return model, folder
