"""The device's commands: ``generate`` and ``chat``."""
