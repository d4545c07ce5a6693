"""The demo language model: its corpus, its training, its evaluation."""
