"""From settings to the parts of a server, in this process or in a replica's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloud.settings import EngineSettings, LimitSettings, ModelSettings, ServeSettings
from lambda_split.errors import UsageError
from lambda_split.split import Split

if TYPE_CHECKING:
    from cloud.admission import Waiting
    from cloud.connection import Limits
    from cloud.engine import BatchingEngine
    from cloud.pacing import Pacing
    from lambda_split.wire.handshake import ServerOffer

__all__ = ["connections", "limits_of", "load", "model_name", "pacing_of", "waiting_of"]


def model_name(model: ModelSettings) -> str:
    """The model to serve.

    Raises:
        UsageError: none was named.
    """
    if model.name is None:
        raise UsageError("give the MODEL to serve: a folder, a Hugging Face id, or 'demo'")
    return model.name


def load(model: ModelSettings, engine: EngineSettings) -> tuple[BatchingEngine, ServerOffer]:
    """Read the trunk.

    Raises:
        UsageError: the settings make no sense for this machine or model.
        CheckpointError: the model cannot be served.
    """
    name = model_name(model)
    import torch

    from cloud.loading import TrunkSettings, choose_devices, choose_dtype, load_service
    from lambda_split.partition import open_checkpoint

    if model.threads is not None:
        torch.set_num_threads(model.threads)
    device, devices = choose_devices(model.device, model.devices)
    trunk = TrunkSettings(
        split=Split(model.head_layers, model.tail_layers),
        device=device,
        devices=devices,
        dtype=choose_dtype(model.dtype, device),
        max_sessions=engine.max_sessions,
        max_positions=engine.max_positions,
        kv_memory=engine.kv_memory,
        block_positions=engine.block_positions,
    )
    checkpoint = open_checkpoint(name, revision=model.revision, lora=model.lora)
    return load_service(checkpoint, trunk)


def connections(sessions: int) -> int:
    """Connections for so many sessions: some more shake hands, are refused or are closing."""
    return 2 * sessions + 16


def limits_of(settings: LimitSettings, *, max_connections: int) -> Limits:
    """What a connection may ask.

    Args:
        settings: Its ``max_connections`` is left to the caller.
        max_connections: The most welcomed connections at a time.
    """
    from cloud.connection import Limits

    return Limits(
        max_connections=max_connections,
        max_newcomers=settings.max_newcomers,
        max_chunk_tokens=settings.max_chunk_tokens,
        max_in_flight=settings.max_in_flight,
        handshake_s=settings.hello_seconds,
        linger_s=settings.drain_seconds,
    )


def pacing_of(settings: EngineSettings) -> Pacing:
    """How steps are filled."""
    from cloud.pacing import Pacing

    return Pacing(step_tokens=settings.step_tokens, slowdown=settings.prompt_slowdown)


def waiting_of(settings: ServeSettings) -> Waiting:
    """How much may wait, and who makes room."""
    from cloud.admission import Waiting

    return Waiting(
        max_positions=settings.engine.max_waiting,
        evict_idle_s=settings.limits.evict_idle_seconds,
    )
