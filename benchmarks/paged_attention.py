"""Candidates for the attention of one decode step over paged keys and values.

Sessions of different lengths, one query each. A candidate is made for one :class:`Pages` and is
then a function without arguments that attends once; what is done at every layer is inside, what a
step does once for all layers is not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn.attention.flex_attention import BlockMask, flex_attention
from torch.nn.functional import scaled_dot_product_attention

__all__ = ["CANDIDATES", "Pages", "make_pages", "reference"]

Attend = Callable[[], torch.Tensor]


@dataclass(frozen=True)
class Pages:
    """Keys and values of several sessions in one pool, and a query of each.

    Attributes:
        query: (sessions, heads, head_dim).
        keys: (blocks, block_positions, heads, head_dim).
        values: As ``keys``.
        table: int32 (sessions, most blocks of one): which blocks hold a session, in order.
        lengths: Positions of each session.
    """

    query: torch.Tensor
    keys: torch.Tensor
    values: torch.Tensor
    table: torch.Tensor
    lengths: list[int]

    @property
    def block_positions(self) -> int:
        """Positions of a block."""
        return self.keys.shape[1]

    def held(self, index: int) -> torch.Tensor:
        """A session's blocks, without those that only fill its row of the table up."""
        return self.table[index, : -(-self.lengths[index] // self.block_positions)]

    def slots(self, index: int) -> torch.Tensor:
        """Where a session's positions are in the flat pool: int64 (length,)."""
        offsets = torch.arange(self.block_positions, device=self.table.device)
        # (blocks, 1) * block_positions + (block_positions,) -> all their slots
        slots = self.held(index).long()[:, None] * self.block_positions + offsets
        return slots.flatten()[: self.lengths[index]]

    def flat(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values as (slots, heads, head_dim)."""
        return self.keys.flatten(0, 1), self.values.flatten(0, 1)


def make_pages(
    lengths: list[int],
    *,
    heads: int,
    head_dim: int,
    block_positions: int,
    dtype: torch.dtype,
    device: torch.device,
    scattered: bool = True,
) -> Pages:
    """Random pages; a session's blocks lie anywhere, or side by side."""
    counts = [-(-length // block_positions) for length in lengths]
    order = torch.randperm(sum(counts)) if scattered else torch.arange(sum(counts))
    table = torch.zeros(len(lengths), max(counts), dtype=torch.int32)
    for row, blocks in zip(table, order.split(counts), strict=True):
        row[: len(blocks)] = blocks
    shape = (sum(counts), block_positions, heads, head_dim)
    return Pages(
        query=torch.randn(len(lengths), heads, head_dim, dtype=dtype, device=device),
        keys=torch.randn(shape, dtype=dtype, device=device),
        values=torch.randn(shape, dtype=dtype, device=device),
        table=table.to(device),
        lengths=lengths,
    )


def reference(pages: Pages) -> torch.Tensor:
    """What every candidate must give: float32 (sessions, heads, head_dim)."""
    keys, values = pages.flat()
    rows = []
    for index in range(len(pages.lengths)):
        slots = pages.slots(index)
        query = pages.query[index, :, None].float()  # (heads, 1, head_dim)
        own_keys = keys[slots].float().transpose(0, 1)  # (heads, positions, head_dim)
        own_values = values[slots].float().transpose(0, 1)
        scores = query @ own_keys.transpose(1, 2) * query.shape[-1] ** -0.5
        rows.append((scores.softmax(-1) @ own_values)[:, 0])  # (heads, head_dim)
    return torch.stack(rows)


def sdpa_by_session(pages: Pages) -> Attend:
    """Each session's pages are gathered, then attended to: two copies and a kernel for each."""
    slots = [pages.slots(index) for index in range(len(pages.lengths))]
    keys, values = pages.flat()

    def attend() -> torch.Tensor:
        rows = []
        for index, own in enumerate(slots):
            out = scaled_dot_product_attention(
                pages.query[index, :, None][None],  # (1, heads, 1, head_dim)
                keys[own].transpose(0, 1)[None],  # (1, heads, positions, head_dim)
                values[own].transpose(0, 1)[None],
            )
            rows.append(out[0, :, 0])
        return torch.stack(rows)

    return attend


def sdpa_by_session_views(pages: Pages) -> Attend:
    """As above, but the pages must lie side by side: keys are views of the pool."""
    starts = [int(pages.table[index, 0]) * pages.block_positions for index in _all(pages)]
    keys, values = pages.flat()

    def attend() -> torch.Tensor:
        rows = []
        for index, start in enumerate(starts):
            stop = start + pages.lengths[index]
            out = scaled_dot_product_attention(
                pages.query[index, :, None][None],
                keys[start:stop].transpose(0, 1)[None],
                values[start:stop].transpose(0, 1)[None],
            )
            rows.append(out[0, :, 0])
        return torch.stack(rows)

    return attend


def sdpa_padded(pages: Pages) -> Attend:
    """All pages gathered into one padded batch, with a mask: two copies and one kernel."""
    longest = pages.table.shape[1] * pages.block_positions
    positions = torch.arange(longest, device=pages.table.device)
    mask = positions < torch.tensor(pages.lengths, device=pages.table.device)[:, None]
    table = pages.table.long()

    def attend() -> torch.Tensor:
        # (sessions, blocks, block_positions, heads, head_dim) -> (sessions, heads, longest, …)
        keys = pages.keys[table].flatten(1, 2).transpose(1, 2)
        values = pages.values[table].flatten(1, 2).transpose(1, 2)
        query = pages.query[:, :, None]  # (sessions, heads, 1, head_dim)
        return scaled_dot_product_attention(query, keys, values, mask[:, None, None])[:, :, 0]

    return attend


def varlen_block_table(pages: Pages) -> Attend:
    """Flash attention that reads the pages by their table."""
    from torch.nn.attention.varlen import varlen_attn

    device = pages.table.device
    borders = torch.arange(len(pages.lengths) + 1, dtype=torch.int32, device=device)
    used = torch.tensor(pages.lengths, dtype=torch.int32, device=device)
    longest = pages.table.shape[1] * pages.block_positions

    def attend() -> torch.Tensor:
        return _tensor(
            varlen_attn(
                *(pages.query, pages.keys, pages.values, borders, None, 1, longest),
                seqused_k=used,
                block_table=pages.table,
            )
        )

    return attend


def varlen_gathered(pages: Pages) -> Attend:
    """All pages gathered end to end, then flash attention: two copies and one kernel."""
    from torch.nn.attention.varlen import varlen_attn

    device = pages.table.device
    slots = torch.cat([pages.slots(index) for index in _all(pages)])
    queries = torch.arange(len(pages.lengths) + 1, dtype=torch.int32, device=device)
    ends = torch.tensor([0, *pages.lengths]).cumsum(0).to(device, torch.int32)
    longest = max(pages.lengths)
    keys, values = pages.flat()

    def attend() -> torch.Tensor:
        return _tensor(
            varlen_attn(pages.query, keys[slots], values[slots], queries, ends, 1, longest)
        )

    return attend


def varlen_views(pages: Pages) -> Attend:
    """Flash attention on the pool itself: pages must lie side by side, sessions in any order.

    ``cu_seq_k`` says only where a session begins, since ``seqused_k`` says how long it is.
    """
    from torch.nn.attention.varlen import varlen_attn

    device = pages.table.device
    queries = torch.arange(len(pages.lengths) + 1, dtype=torch.int32, device=device)
    begins = pages.table[:, 0] * pages.block_positions
    end = torch.tensor([pages.keys.shape[0] * pages.block_positions], device=device)
    starts = torch.cat([begins, end.to(torch.int32)])
    used = torch.tensor(pages.lengths, dtype=torch.int32, device=device)
    longest = max(pages.lengths)
    keys, values = pages.flat()

    def attend() -> torch.Tensor:
        return _tensor(
            varlen_attn(pages.query, keys, values, queries, starts, 1, longest, seqused_k=used)
        )

    return attend


def flex(pages: Pages) -> Attend:
    """FlexAttention, compiled, over the whole pool with each session's blocks as its mask."""
    device, size = pages.table.device, pages.block_positions
    sessions, blocks = len(pages.lengths), pages.keys.shape[0]
    # Which block of its session each block of the pool is; -1 where it is another's.
    logical = torch.full((sessions, blocks), -1, dtype=torch.int32, device=device)
    for index in _all(pages):
        held = pages.held(index).long()
        logical[index, held] = torch.arange(len(held), dtype=torch.int32, device=device)
    lengths = torch.tensor(pages.lengths, dtype=torch.int32, device=device)

    def sees(
        session: torch.Tensor, head: torch.Tensor, query: torch.Tensor, slot: torch.Tensor
    ) -> torch.Tensor:
        del head, query  # every head's only query sees all of its session
        block = logical[session, slot // size]
        return (block >= 0) & (block * size + slot % size < lengths[session])

    numbers = torch.zeros(sessions, 1, 1, blocks, dtype=torch.int32, device=device)
    numbers[:, 0, 0, : pages.table.shape[1]] = pages.table
    counts = torch.tensor([len(pages.held(index)) for index in _all(pages)], device=device)
    mask = BlockMask.from_kv_blocks(
        counts.to(torch.int32)[:, None, None],  # (sessions, 1, 1 query block)
        numbers,
        BLOCK_SIZE=(128, size),
        mask_mod=sees,
        seq_lengths=(1, blocks * size),
    )
    keys, values = (each.transpose(0, 1)[None] for each in pages.flat())  # (1, heads, slots, …)
    compiled = torch.compile(flex_attention, dynamic=False)

    def attend() -> torch.Tensor:
        query = pages.query[:, :, None]  # (sessions, heads, 1, head_dim)
        return _tensor(compiled(query, keys, values, block_mask=mask))[:, :, 0]

    return attend


def _all(pages: Pages) -> range:
    return range(len(pages.lengths))


def _tensor(out: torch.Tensor | tuple[torch.Tensor, ...]) -> torch.Tensor:
    return out if isinstance(out, torch.Tensor) else out[0]


# By name: how it is made, and whether a session's pages must lie side by side.
CANDIDATES: dict[str, tuple[Callable[[Pages], Attend], bool]] = {
    "varlen_attn, block table": (varlen_block_table, False),
    "varlen_attn, views of the pool": (varlen_views, True),
    "varlen_attn, pages gathered": (varlen_gathered, False),
    "flex_attention, compiled": (flex, False),
    "SDPA, padded batch": (sdpa_padded, False),
    "SDPA by session, views of the pool": (sdpa_by_session_views, True),
    "SDPA by session, pages gathered": (sdpa_by_session, False),
}
