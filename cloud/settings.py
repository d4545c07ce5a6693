"""What ``lambda-split serve`` can be told: the one table of its options."""

# ruff: noqa: RUF009 - option() makes a dataclass field, as field() does

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from cloud.options import (
    MemoryShare,
    Option,
    choice,
    count,
    memory,
    number,
    option,
    options_of,
    path,
    seconds,
    text,
    texts,
    yes_or_no,
)

__all__ = [
    "OPTIONS",
    "SECTIONS",
    "EngineSettings",
    "LimitSettings",
    "LogSettings",
    "MetricsSettings",
    "ModelSettings",
    "NetworkSettings",
    "ReplicaSettings",
    "ServeSettings",
]

_PORT = count(0, 65535, "PORT")


@dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """What is served, and on what."""

    name: str | None = option(
        None,
        text("MODEL"),
        "a folder, a Hugging Face id, 'demo' or 'demo-image'",
        unset="must be given",
        positional="MODEL",
    )
    head_layers: int = option(
        1,
        count(0, metavar="H"),
        "first layers that are left to the devices. Devices whose head has H layers or more and "
        "whose tail has T or more are served: they use a part of the trunk",
    )
    tail_layers: int = option(1, count(0, metavar="T"), "last layers that are left to the devices")
    lora: tuple[str, ...] = option(
        (),
        texts("PATH"),
        "merge this adapter (repeatable, in order); export must have had the same ones",
        unset="none",
    )
    revision: str | None = option(
        None, text("REVISION"), "branch, tag or commit of a Hugging Face id", unset="the main one"
    )
    device: str = option(
        "auto", text("DEVICE"), "auto, cpu, cuda or cuda:N; auto takes a GPU where there is one"
    )
    devices: str | None = option(
        None,
        text("LIST"),
        "spread a trunk that is larger than one GPU over several of its machine: cuda:0,cuda:1 …, "
        "or 'auto' for all; instead of --device",
        unset="one",
    )
    dtype: str = option(
        "auto",
        choice("auto", "float32", "float16", "bfloat16"),
        "of weights and computation; auto is float32 on CPUs and a 16-bit one on GPUs",
    )
    threads: int | None = option(None, count(1), "CPU threads", unset="torch decides")


@dataclass(frozen=True, kw_only=True)
class NetworkSettings:
    """Where it listens and whom it lets in."""

    host: str = option("127.0.0.1", text("HOST"), "address to listen on")
    port: int = option(8765, _PORT, "port to listen on, 0 for a free one")
    tls_cert: pathlib.Path | None = option(
        None,
        path(),
        "certificate chain (PEM) for wss; read again on SIGHUP",
        unset="plain ws",
    )
    tls_key: pathlib.Path | None = option(None, path(), "its private key (PEM)", unset="none")
    token_file: pathlib.Path | None = option(
        None,
        path(),
        "devices must present a token of this file; read again on SIGHUP",
        unset="everyone is let in",
    )
    insecure: bool = option(
        default=False,
        kind=yes_or_no(),
        description="listen beyond this machine although whoever reaches the port can use it, or "
        "read what crosses the wire",
    )


@dataclass(frozen=True, kw_only=True)
class EngineSettings:
    """How much it carries at a time."""

    max_sessions: int = option(16, count(1), "sessions at a time")
    max_positions: int | None = option(
        None,
        count(1),
        "positions of one session, prompt and reply together",
        unset="as many as the model has",
    )
    max_waiting: int = option(
        65536,
        count(1),
        "positions of all sessions together that may wait; beyond that newcomers are told to try "
        "again",
    )
    kv_memory: int | MemoryShare | None = option(
        None,
        memory(),
        "memory for what all sessions keep between steps, keys and values above all: 8GB, 500MB, a "
        "number of GB, or a share of what is free at the start as 60%",
        unset="half of what is free, on a GPU 85%",
    )
    max_latents: int | None = option(
        None,
        count(1),
        "pictures: latent positions of one, images × height × width, where a picture of 1024 × "
        "1024 pixels has 16384",
        unset="as many as the free memory allows",
    )
    step_tokens: int = option(
        512,
        count(1, 1 << 20),
        "the most positions of prompts in one step; where others decode, fewer",
    )
    prompt_slowdown: float = option(
        2.0,
        number(1.1, 1e6, "TIMES"),
        "a step with a piece of a prompt may take so many times as long as one without, while "
        "others decode",
    )
    block_positions: int | None = option(
        None,
        count(1, 4096),
        "positions of one block of keys and values",
        unset="16, on a GPU 256",
    )


@dataclass(frozen=True, kw_only=True)
class LimitSettings:
    """What one connection may ask, and for how long."""

    max_connections: int | None = option(
        None,
        count(1),
        "connections at a time, without those that have no session yet",
        unset="2 × max-sessions + 16; at a gateway max-sessions × max-replicas counts",
    )
    max_newcomers: int = option(
        128, count(1), "connections at a time that have no session yet; beyond that some are cut"
    )
    newcomers_per_second: float = option(
        200.0,
        number(1, 1e6, "X"),
        "connections that are accepted in a second on average; more of them wait, so that a storm "
        "of them does not hold up sessions",
    )
    max_chunk_tokens: int = option(512, count(1, 1 << 20), "positions of one frame")
    max_in_flight: int = option(8, count(1, 1024), "forwards of a session that wait for replies")
    hello_seconds: int = option(
        10, count(1, 3600, "SECONDS"), "until the upgrade, and then the hello, must have arrived"
    )
    evict_idle_seconds: float = option(
        10.0, seconds(0, 86400 * 365), "idle time after which a session makes room for another"
    )
    drain_seconds: float = option(
        3.0,
        seconds(0, 86400),
        "how long open sessions may go on after SIGTERM before their devices are sent elsewhere",
    )


@dataclass(frozen=True, kw_only=True)
class MetricsSettings:
    """Prometheus metrics, on a listener of their own."""

    metrics_port: int | None = option(
        None, _PORT, "serve /metrics, /healthz and /readyz there, 0 for a free one", unset="off"
    )
    metrics_host: str = option("127.0.0.1", text("HOST"), "address for that; has no TLS or tokens")


@dataclass(frozen=True, kw_only=True)
class LogSettings:
    """What it says on stderr."""

    log_level: str = option(
        "info",
        choice("debug", "info", "warning", "error"),
        "how much to say; hidden states and tokens never appear",
    )
    log_format: str = option("text", choice("text", "json"), "lines for people, or JSON objects")


@dataclass(frozen=True, kw_only=True)
class ReplicaSettings:
    """Replicas on a Ray cluster, and a gateway in front of them."""

    replicas: str | None = option(
        None,
        choice("ray"),
        "run replicas on a Ray cluster (extra 'ray') and be a gateway in front of them; [model], "
        "[engine] and what [limits] says of sessions then hold for each replica",
        unset="none: serve here",
    )
    min_replicas: int = option(1, count(1), "replicas at least")
    max_replicas: int | None = option(
        None, count(1), "replicas at most", unset="as many as min-replicas"
    )
    ray_address: str | None = option(
        None,
        text("ADDRESS"),
        "a running cluster, HOST:PORT, or 'auto' for this machine's",
        unset="start one on this machine that ends with this process",
    )
    gpus_per_replica: float | None = option(
        None, number(0, 1e6, "X"), "may be a part of one", unset="1 on a GPU, 0 with --device cpu"
    )
    cpus_per_replica: float = option(
        1.0, number(0, 1e6, "X"), "CPUs that Ray sets aside for a replica; may be a part of one"
    )
    upscale_delay: float = option(
        10.0,
        seconds(0, 86400 * 365),
        "start replicas after more have been wanted for so long",
    )
    downscale_delay: float = option(
        600.0,
        seconds(0, 86400 * 365),
        "drain replicas after fewer have been wanted for so long",
    )
    replicas_name: str = option(
        "lambda-split",
        text("NAME"),
        "of the application on the cluster; other models need other names",
    )
    gateway_only: bool = option(
        default=False,
        kind=yes_or_no(),
        description="be one more gateway for replicas that another process runs at --ray-address",
    )

    @property
    def highest(self) -> int:
        """The most replicas."""
        return self.max_replicas or self.min_replicas


@dataclass(frozen=True, kw_only=True)
class ServeSettings:
    """All settings of a server, checked."""

    model: ModelSettings = field(default_factory=ModelSettings)
    network: NetworkSettings = field(default_factory=NetworkSettings)
    engine: EngineSettings = field(default_factory=EngineSettings)
    limits: LimitSettings = field(default_factory=LimitSettings)
    metrics: MetricsSettings = field(default_factory=MetricsSettings)
    log: LogSettings = field(default_factory=LogSettings)
    replicas: ReplicaSettings = field(default_factory=ReplicaSettings)


SECTIONS: Final[Mapping[str, type[Any]]] = {
    "model": ModelSettings,
    "network": NetworkSettings,
    "engine": EngineSettings,
    "limits": LimitSettings,
    "metrics": MetricsSettings,
    "log": LogSettings,
    "replicas": ReplicaSettings,
}

OPTIONS: Final[tuple[Option, ...]] = tuple(
    each for section, settings in SECTIONS.items() for each in options_of(settings, section)
)
