"""One conversation's state on the device: its tokens and what each of the three parts holds.

Head and tail keep their own KV caches, the trunk keeps one in the cloud; all three are functions
of the tokens so far. :class:`Context` keeps them in step: it cuts all three back to a common prefix
and runs new tokens through head, trunk and tail.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Generator, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from edge_runtime.graphs import HeadRunner, TailRunner
from edge_runtime.pieces import piece_lengths
from edge_runtime.replay import ReplayingTrunk
from edge_runtime.stats import Meter
from lambda_split.errors import PromptEmpty, PromptTooLong, UsageError

__all__ = ["Context"]

Logits = npt.NDArray[np.float32]


class Context:
    """The tokens of one conversation and the caches that belong to them.

    Attributes:
        token_ids: The tokens whose positions all three parts hold.
        max_positions: The most tokens it can hold.
    """

    def __init__(
        self, head: HeadRunner, tail: TailRunner, trunk: ReplayingTrunk, meter: Meter
    ) -> None:
        self._head = head
        self._tail = tail
        self._tail_has_layers = tail.has_layers
        self._trunk = trunk
        self._meter = meter
        self.max_positions = trunk.max_positions
        self._head_cache = head.new_cache(trunk.max_positions)
        self._tail_cache = tail.new_cache(trunk.max_positions)
        self._token_ids: list[int] = []
        self._running = False

    @property
    def token_ids(self) -> Sequence[int]:
        """The tokens whose positions all three parts hold."""
        return self._token_ids

    def rewind(self, token_ids: Sequence[int]) -> int:
        """Cut all three parts back to the longest common prefix with ``token_ids``.

        At least the last token is left to run, since its logits are wanted.

        Returns:
            The number of tokens that are still held.

        Raises:
            UsageError: as for :meth:`check_idle`.
        """
        self.check_idle()
        kept = 0
        limit = min(len(self._token_ids), len(token_ids) - 1)
        while kept < limit and self._token_ids[kept] == token_ids[kept]:
            kept += 1
        self._truncate(kept)
        self._meter.cached_tokens += kept
        return kept

    def forget(self) -> None:
        """Cut all three parts back to nothing; errors as of :meth:`rewind`."""
        self.check_idle()
        self._truncate(0)

    def extend(
        self, token_ids: Sequence[int], on_progress: Callable[[int, int], object] | None = None
    ) -> Logits:
        """Run new tokens through head, trunk and tail.

        Many tokens go in pieces: the head works on the next one while earlier ones are on their
        way, the trunk on what has arrived, the tail on what has come back. If this is interrupted,
        the context is as it was before.

        Args:
            token_ids: At least one token, to be appended.
            on_progress: Called when a piece has been through all three parts, with how many of
                the new tokens have, and how many there are.

        Returns:
            Logits of the last token, float32 (vocab,), in a buffer that the next call overwrites.

        Raises:
            PromptEmpty: no tokens.
            PromptTooLong: more than the session has positions.
            UsageError: the session was closed, or tokens are being run already.
            WireError: the server rejected a chunk, does not serve this bundle any more, or broke
                the protocol.
            ConnectionLost: replaying was given up.
            BundleError: a graph failed.
        """
        (logits,) = self._run(token_ids, all_logits=False, on_progress=on_progress)
        last: Logits = logits[-1]  # (n, V) -> (V,)
        return last

    def extend_with_all_logits(
        self, token_ids: Sequence[int], on_progress: Callable[[int, int], object] | None = None
    ) -> Generator[Logits]:
        """As :meth:`extend`, for the logits of every new token, in order.

        Who does not take all of them closes it.

        Yields:
            float32 (n, vocab) for each chunk of n tokens, in a buffer that the next one overwrites.
        """
        yield from self._run(token_ids, all_logits=True, on_progress=on_progress)

    def check_idle(self) -> None:
        """See that no tokens are being run.

        Raises:
            UsageError: they are, by who calls this or in another thread.
        """
        if self._running:
            raise UsageError(
                "a prompt is being run on this generator: what is asked of it meanwhile, by "
                "on_prompt or by another thread, would spoil both"
            )

    def _truncate(self, length: int) -> None:
        del self._token_ids[length:]
        self._head_cache.truncate(length)
        self._tail_cache.truncate(length)
        self._trunk.truncate(length)

    def _run(
        self,
        token_ids: Sequence[int],
        *,
        all_logits: bool,
        on_progress: Callable[[int, int], object] | None = None,
    ) -> Iterator[Logits]:
        if not token_ids:
            raise PromptEmpty
        start = len(self._token_ids)
        end = start + len(token_ids)
        if end > self.max_positions:
            raise PromptTooLong(
                "shorten it, or raise --max-positions where the model allows more",
                end,
                self.max_positions,
            )
        self.check_idle()
        self._meter.round_trips += 1
        self._running = True
        try:
            ids = np.asarray(token_ids, dtype=np.int64)
            for chunk, logits in self._pipeline(ids, start, all_logits=all_logits):
                if on_progress is not None:
                    on_progress(chunk.stop - start, len(ids))
                if logits is not None:
                    yield logits
        except BaseException:
            self._trunk.abandon()
            self._truncate(min(start, self._trunk.length))
            raise
        finally:
            self._running = False
        self._token_ids.extend(token_ids)

    def _pipeline(
        self, ids: npt.NDArray[np.int64], start: int, *, all_logits: bool
    ) -> Iterator[tuple[range, Logits | None]]:
        """Each piece when it has been through all three parts, with its logits, if any."""
        end = start + len(ids)
        in_flight: collections.deque[range] = collections.deque()
        position = start
        for length in piece_lengths(len(ids), self._trunk.chunk_tokens):
            chunk = range(position, position + length)
            position = chunk.stop
            # The head goes first, since the link and the trunk wait for it; the tail has time while
            # the last pieces are on their way.
            if len(in_flight) >= self._trunk.max_in_flight:
                oldest = in_flight.popleft()
                yield oldest, self._finish(oldest, end, all_logits=all_logits)
            with self._meter.head():
                hidden = self._head.run(
                    ids[chunk.start - start : chunk.stop - start], chunk.start, self._head_cache
                )
            # A tail with layers attends to every position; one without needs the wanted rows only.
            every_row = self._tail_has_layers or all_logits
            reply = len(chunk) if every_row else int(chunk.stop == end)
            self._trunk.send(chunk.start, hidden, reply=reply)
            in_flight.append(chunk)
        while in_flight:
            oldest = in_flight.popleft()
            yield oldest, self._finish(oldest, end, all_logits=all_logits)

    def _finish(self, chunk: range, end: int, *, all_logits: bool) -> Logits | None:
        """Receive a chunk's reply and run the tail on it."""
        hidden = self._trunk.receive()  # (reply, W)
        if not len(hidden):
            return None
        every_row = range(len(hidden))
        # Without wanted rows the tail's cache grows and the LM head is spared.
        rows = every_row if all_logits else every_row[-1:] if chunk.stop == end else every_row[:0]
        with self._meter.tail():
            logits = self._tail.run(hidden, chunk.stop - len(hidden), self._tail_cache, rows)
        return logits if rows else None
