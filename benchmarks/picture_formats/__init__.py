"""What the formats of the predicted noise cost a picture; run as ``python -m``."""
