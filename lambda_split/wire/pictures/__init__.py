"""The wire for pictures: a denoiser in the cloud, everything else on the device.

The connection, its control messages and its rules are those of text; see ``docs/protocol.md`` and
``docs/protocol-images.md``.
"""
