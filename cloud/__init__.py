"""The trunk service: an engine that runs the layers, a scheduler, a WebSocket server.

Depends on ``lambda_split`` only; see ``docs/protocol.md`` for what it speaks.
"""
