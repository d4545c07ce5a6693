"""Results with round figures, for tests of what is made of them."""

from __future__ import annotations

from bench.cases import LINKS, LOOPBACK, Case, Link
from bench.machine import Machine
from bench.orders import Cost
from bench.results import Bytes, Growth, GrowthPoint, Measurement, Model, Results, Run
from bench.settings import BenchSettings
from lambda_split.split import Split

__all__ = [
    "LAN",
    "MACHINE",
    "MOBILE",
    "MODEL",
    "growth",
    "measurement",
    "results",
    "run",
    "settings",
]

LAN, MOBILE = LINKS[1], LINKS[2]
MODEL = Model(id="demo", fingerprint="ab" * 8, hidden_size=192, layer_count=8, max_positions=1024)
MACHINE = Machine(
    system="Linux x86_64",
    processor="a processor",
    cores=2,
    memory=8_000_000_000,
    python="3.11.7",
    libraries={"torch": "2.9"},
)


def settings(**changes: object) -> BenchSettings:
    """Two modes, one split, all links."""
    return BenchSettings(
        **{
            "server": "own",
            "modes": ("split", "split-everything"),
            "splits": (Split(1, 1),),
            "links": LINKS,
            "prompt_tokens": 10,
            "max_new_tokens": 5,
            "repetitions": 2,
            "max_context": 0,
            "dtype": "float32",
            "weights": "int4",
            "codec": "fp16",
            "threads": None,
            **changes,
        }
    )


def run(seconds: float = 0.004, **changes: object) -> Run:
    """Ten prompt tokens and five new ones; each of the last four takes so many seconds."""
    first = Cost(
        seconds=0.02,
        head_s=0.002,
        link_s=0.004,
        trunk_s=0.01,
        tail_s=0.002,
        bytes_up=4000,
        bytes_down=3900,
        round_trips=1,
    )
    rest = Cost(
        seconds=4 * seconds,
        head_s=4 * 0.0004,
        link_s=4 * (seconds - 0.0032),
        trunk_s=4 * 0.002,
        tail_s=4 * 0.0006,
        bytes_up=1600,
        bytes_down=1560,
        round_trips=4,
    )
    return Run(
        **{
            "prompt_tokens": 10,
            "new_tokens": 5,
            "first": first,
            "rest": rest,
            "socket": Bytes(5670, 5500),
            **changes,
        }
    )


def measurement(link: Link | None = LOOPBACK, **changes: object) -> Measurement:
    """Split 1 + 1, two runs."""
    return Measurement(
        **{
            "case": Case(mode="split", split=Split(1, 1), link=link),
            "runs": (run(), run(0.0045)),
            "handshake": Bytes(1500, 350),
            "device_peak_rss": 90_000_000,
            "server_peak_rss": 440_000_000,
            **changes,
        }
    )


def growth() -> Growth:
    """Two sizes of the context, over loopback."""
    case = Case(mode="split-everything", split=Split(1, 1), link=LOOPBACK, growth=True)
    points = tuple(
        GrowthPoint(
            context=size,
            tokens=8,
            cost=Cost(seconds=8 * size / 1000),
            socket=Bytes(8 * size * 400, 8 * size * 390),
        )
        for size in (16, 1016)
    )
    return Growth(case=case, points=points)


def results(*measurements: Measurement, growths: tuple[Growth, ...] = ()) -> Results:
    """Results of these settings."""
    return Results(
        settings=settings(),
        machine=MACHINE,
        model=MODEL,
        measurements=measurements,
        growths=growths,
    )
