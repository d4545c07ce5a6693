"""Small damage to bytes, and to the order of messages."""

from __future__ import annotations

import random
import struct
from collections.abc import Sequence
from typing import TypeVar

__all__ = ["mutate", "shuffle"]

_T = TypeVar("_T")
_NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0xFFFF, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFE, 0xFFFF_FFFF)


def mutate(data: bytes, rng: random.Random, others: Sequence[bytes] = ()) -> bytes:
    """One to three changes: flipped bits, cuts, doubled pieces, extreme numbers, splices."""
    changed = bytearray(data)
    for _ in range(rng.randint(1, 3)):
        at = rng.randint(0, len(changed))
        match rng.randrange(7):
            case 0 if changed:
                changed[at % len(changed)] ^= 1 << rng.randrange(8)
            case 1:
                del changed[at:]
            case 2:
                del changed[at : at + rng.randint(1, 8)]
            case 3:
                changed[at:at] = rng.randbytes(rng.randint(1, 8))
            case 4:
                changed[at:at] = changed[at : at + rng.randint(1, 64)]
            case 5:
                # Aligned as the header's fields are, more often than not.
                at = at // 4 * 4 if rng.random() < 0.8 else at
                changed[at : at + 4] = struct.pack("<I", rng.choice(_NUMBERS))
            case _ if others:
                other = rng.choice(others)
                changed[at:] = other[rng.randint(0, len(other)) :]
    return bytes(changed)


def shuffle(items: Sequence[_T], rng: random.Random) -> list[_T]:
    """One change of order: something repeated, left out, exchanged, or all of it reversed."""
    changed = list(items)
    if not changed:
        return changed
    at, other = rng.randrange(len(changed)), rng.randrange(len(changed))
    match rng.randrange(4):
        case 0:
            changed.insert(other, changed[at])
        case 1:
            del changed[at]
        case 2:
            changed[at], changed[other] = changed[other], changed[at]
        case _:
            changed[min(at, other) : max(at, other) + 1] = reversed(
                changed[min(at, other) : max(at, other) + 1]
            )
    return changed
