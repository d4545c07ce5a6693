"""Commands that belong to no single side: ``demo`` and ``inspect``."""
