"""Prompts: from text to meaning, to tokens, to what the networks read."""
