"""Attacks on hidden states of language models: pure functions, each returning token ids."""
