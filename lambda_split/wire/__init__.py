"""The wire: frames, control messages, codecs and the session state machine.

No sockets and no torch in here: bytes in, frames and events out. ``docs/protocol.md`` is normative.
"""
