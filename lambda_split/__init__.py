"""Λ-Split: split inference of generative models; the contract that all sides share."""

__version__ = "0.1.0"
