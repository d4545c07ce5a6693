"""From settings to the parts of a server, in this process or in a replica's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloud.settings import EngineSettings, LimitSettings, ModelSettings, ServeSettings
from lambda_split.errors import UsageError
from lambda_split.split import Split

if TYPE_CHECKING:
    from cloud.admission import Waiting
    from cloud.connection import Limits
    from cloud.conversation import ModelKind
    from cloud.pacing import Pacing

__all__ = ["connections", "limits_of", "load", "model_name", "pacing_of", "waiting_of"]


def model_name(model: ModelSettings) -> str:
    """The model to serve.

    Raises:
        UsageError: none was named.
    """
    if model.name is None:
        raise UsageError(
            "give the MODEL to serve: a folder, a Hugging Face id, 'demo' or 'demo-image'"
        )
    return model.name


def load(model: ModelSettings, engine: EngineSettings, limits: LimitSettings) -> ModelKind:
    """Read the trunk of a language model, or a pipeline's denoiser.

    Raises:
        UsageError: the settings make no sense for this machine or model.
        CheckpointError: the model cannot be served.
    """
    name = model_name(model)
    import torch

    from lambda_split.partition.sources import is_pipeline

    if model.threads is not None:
        torch.set_num_threads(model.threads)
    if is_pipeline(name, model.revision):
        return _load_denoiser(name, model, engine)
    return _load_language_model(name, model, engine, limits)


def _load_denoiser(name: str, model: ModelSettings, engine: EngineSettings) -> ModelKind:
    from cloud.loading import choose_devices, choose_dtype
    from cloud.pictures.loading import DenoiserSettings, load_denoiser
    from lambda_split.partition.pipelines import open_pipeline

    device, devices = choose_devices(model.device, model.devices)
    if len(devices) > 1:
        raise UsageError("--devices spreads language models: a denoiser runs on one device")
    settings = DenoiserSettings(
        device=device,
        dtype=choose_dtype(model.dtype, device),
        max_sessions=engine.max_sessions,
        max_latents=engine.max_latents,
        memory=engine.kv_memory,
    )
    return load_denoiser(open_pipeline(name, model.revision, model.lora), settings)


def _load_language_model(
    name: str, model: ModelSettings, engine: EngineSettings, limits: LimitSettings
) -> ModelKind:
    from cloud.loading import TrunkSettings, choose_devices, choose_dtype, load_service
    from cloud.text import LanguageModel
    from lambda_split.partition import open_checkpoint

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
    batching, offer = load_service(checkpoint, trunk)
    return LanguageModel(batching, offer, limits.max_chunk_tokens)


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
        newcomers_per_s=settings.newcomers_per_second,
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
