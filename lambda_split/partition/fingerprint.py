"""A checkpoint's identity, computed alike by export and server from what each reads anyway.

Export must not open shards that hold only trunk layers, and a server must not read head or tail
tensors, so the two share no tensor's bytes in general. The fingerprint therefore covers the
config, the names of all tensors and the adapters; the *witnesses* cover bytes: trunk tensors that
lie in shards which export opens anyway. See ``docs/adr/0002-fingerprint.md``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence

import torch

__all__ = ["MAX_WITNESSES", "choose_witnesses", "fingerprint", "tensor_digest"]

MAX_WITNESSES = 16
_DIGEST_CHARACTERS = 32  # of sha256 in hex: 128 bits
_WITNESS_BYTES = 4096
# Written by whichever tool saved the checkpoint last; they say nothing about the weights.
_VOLATILE = {
    "_name_or_path",
    "_diffusers_version",
    "transformers_version",
    "dtype",
    "torch_dtype",
}


def fingerprint(
    config: dict[str, object], tensor_names: Iterable[str], adapters: Sequence[str]
) -> str:
    """Digest of what makes a checkpoint this checkpoint.

    Args:
        config: ``config.json`` as parsed.
        tensor_names: Names of all tensors, in any order.
        adapters: Digests of the adapters that are merged, in order.
    """
    stable = {key: value for key, value in config.items() if key not in _VOLATILE}
    canonical = json.dumps(
        [stable, sorted(tensor_names), list(adapters)], sort_keys=True, separators=(",", ":")
    )
    return hashlib.sha256(canonical.encode()).hexdigest()[:_DIGEST_CHARACTERS]


def tensor_digest(tensor: torch.Tensor) -> str:
    """Digest of a stored tensor's dtype, shape and first 4096 bytes (row-major)."""
    count = max(1, _WITNESS_BYTES // tensor.element_size())
    first = tensor.reshape(-1)[:count].contiguous().view(torch.uint8).numpy().tobytes()
    kind = f"{tensor.dtype} {list(tensor.shape)}\n"
    return hashlib.sha256(kind.encode() + first).hexdigest()[:_DIGEST_CHARACTERS]


def choose_witnesses(shapes: Mapping[str, Sequence[int]]) -> tuple[str, ...]:
    """At most :data:`MAX_WITNESSES` of the tensors, evenly spread over their order.

    Matrices, where there are any: fine-tuning changes them, while norms often stay as they were.

    Args:
        shapes: The tensors to choose from and their shapes.
    """
    matrices = [name for name, shape in shapes.items() if len(shape) > 1]
    candidates = matrices or list(shapes)
    count = min(MAX_WITNESSES, len(candidates))
    return tuple(candidates[index * len(candidates) // count] for index in range(count))
