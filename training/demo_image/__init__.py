"""The demo image model: its pictures, its training, its evaluation."""
