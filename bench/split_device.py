"""A device with head and tail: the library as everyone uses it, without torch."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import msgspec

from bench.memory import peak_rss
from bench.orders import Cost, Generate, Generated, SplitEnds
from edge_runtime import GenerationStats, RuntimeSettings, SamplingSettings, TextGenerator
from lambda_split.arguments import read_token_file
from lambda_split.bundle import Bundle, load_bundle
from lambda_split.errors import BundleKindWrong

__all__ = ["SplitDevice", "split_device"]

_GREEDY = SamplingSettings()


class SplitDevice:
    """Generates with the trunk elsewhere."""

    def __init__(self, generator: TextGenerator) -> None:
        self._generator = generator

    def generate(self, order: Generate) -> Generated:
        """Carry out an order.

        Raises:
            LambdaSplitError: as :meth:`TextGenerator.generate`.
        """
        if order.afresh:
            self._generator.forget()
        first, rest, made = self._everything(order) if order.everything else self._new_only(order)
        return Generated(
            prompt_tokens=len(order.token_ids),
            new_tokens=order.max_new_tokens,
            first=first,
            rest=rest,
            peak_rss=peak_rss(),
            token_ids=made,
        )

    def _new_only(self, order: Generate) -> tuple[Cost, Cost, tuple[int, ...]]:
        result = self._generator.generate(
            order.token_ids, max_new_tokens=order.max_new_tokens, sampling=_GREEDY
        )
        rest = _cost(result.stats - result.prompt_stats)
        return _cost(result.prompt_stats), rest, result.token_ids

    def _everything(self, order: Generate) -> tuple[Cost, Cost, tuple[int, ...]]:
        token_ids = list(order.token_ids)
        costs = []
        for _ in range(order.max_new_tokens):
            self._generator.forget()
            result = self._generator.generate(token_ids, max_new_tokens=1, sampling=_GREEDY)
            token_ids += result.token_ids
            costs.append(_cost(result.stats))
        return costs[0], sum(costs[1:], Cost()), tuple(token_ids[len(order.token_ids) :])


@contextlib.contextmanager
def split_device(setup: SplitEnds) -> Iterator[SplitDevice]:
    """Load the bundle and connect.

    Raises:
        LambdaSplitError: as :meth:`TextGenerator.open`.
    """
    token = None if setup.token_file is None else read_token_file(setup.token_file)
    with TextGenerator.open(
        _without_stops(load_bundle(setup.bundle).at(setup.split)),
        setup.url,
        token=token,
        codec=setup.codec,
        max_positions=setup.max_positions,
        runtime=RuntimeSettings(threads=setup.threads),
    ) as generator:
        yield SplitDevice(generator)


def _without_stops(bundle: Bundle) -> Bundle:
    """The bundle, of which no token ends a generation: all are to be equally long."""
    text = bundle.manifest.text
    if text is None:
        raise BundleKindWrong(str(bundle.path), bundle.manifest.kind)
    text = msgspec.structs.replace(text, stop_token_ids=())
    return Bundle(bundle.path, msgspec.structs.replace(bundle.manifest, text=text))


def _cost(stats: GenerationStats) -> Cost:
    return Cost(
        seconds=stats.total_s,
        head_s=stats.head_s,
        link_s=stats.link_s,
        trunk_s=stats.trunk_s,
        tail_s=stats.tail_s,
        bytes_up=stats.bytes_up,
        bytes_down=stats.bytes_down,
        round_trips=stats.round_trips,
    )
