"""What whoever reads the trunk's messages sees of a picture; run as ``python -m``."""
