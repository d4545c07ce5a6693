"""How manifests and messages write digests: of checkpoints, adapters and tensors."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

__all__ = ["Digest", "Sha256", "Witnesses"]

# Patterns end with \Z, as "$" would let a line feed follow.
Digest = Annotated[str, Meta(pattern=r"^[0-9a-f]{8,64}\Z")]
Sha256 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
# Tensor names to the digests of their dtype, shape and first bytes.
Witnesses = Annotated[dict[Annotated[str, Meta(max_length=256)], Digest], Meta(max_length=32)]
