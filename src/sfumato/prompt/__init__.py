"""Prompts: from text to tokens to what the networks read."""

from sfumato.prompt.encode import Cond, encode, refiner_ids, size_ids, window
from sfumato.prompt.tokenizer import Tokenizer

__all__ = ["Cond", "Tokenizer", "encode", "refiner_ids", "size_ids", "window"]
