"""From a checkpoint to what a server serves: an engine and an offer."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields

import torch
from tqdm import tqdm

from cloud.engine import BatchingEngine, KVGeometry, KVPool, required_attention
from cloud.engine.graphs import Recorder, cuda_recorder
from cloud.engine.packing import pack_linear_layers
from cloud.engine.paged import PagedAttention, best_attention, varlen_kernel
from cloud.engine.ragged import Attend
from cloud.memory import KVSettings, make_pool
from cloud.options import MemoryShare
from cloud.spreading import parse_devices, spread
from lambda_split.errors import UsageError
from lambda_split.partition import Checkpoint, load_trunk
from lambda_split.split import Split
from lambda_split.wire.handshake import ServerOffer

__all__ = [
    "TrunkSettings",
    "choose_device",
    "choose_devices",
    "choose_dtype",
    "load_service",
]

_logger = logging.getLogger(__name__)
_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


@dataclass(frozen=True, kw_only=True)
class TrunkSettings:
    """How a trunk is served.

    Attributes:
        split: The layers left to devices; the trunk between them is loaded.
        device: Where it runs.
        dtype: Of its weights and hidden states.
        max_sessions: The most sessions at a time.
        max_positions: The most positions of one; as many as fit, at most the model's, where None.
        kv_memory: For the keys and values of all sessions: bytes, or a share of what is free; the
            usual share where None.
        block_positions: Positions of a block of the pool; what suits the device where None.
        devices: Where more than one, its layers are spread over these, and ``device`` is the first.
    """

    split: Split
    device: torch.device
    dtype: torch.dtype
    max_sessions: int
    max_positions: int | None = None
    kv_memory: int | MemoryShare | None = None
    block_positions: int | None = None
    devices: tuple[torch.device, ...] = ()


def choose_device(name: str) -> torch.device:
    """The device of that name; ``auto`` takes CUDA where there is one.

    Raises:
        UsageError: no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(f"--device {name}: use auto, cpu, cuda or cuda:N") from error
    if device.type not in {"cpu", "cuda"}:
        raise UsageError(f"--device {name}: use auto, cpu, cuda or cuda:N")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UsageError(f"--device {name}: torch sees {torch.cuda.device_count()} CUDA device(s)")
    return device


def choose_devices(
    device: str, devices: str | None
) -> tuple[torch.device, tuple[torch.device, ...]]:
    """Where a trunk runs: the device that inputs go to, and all of them where there are several.

    Args:
        device: See :func:`choose_device`.
        devices: See :func:`~cloud.spreading.parse_devices`; where given, ``device`` must be
            ``auto``.

    Raises:
        UsageError: no such device, or both were named.
    """
    if devices is None:
        return choose_device(device), ()
    if device != "auto":
        raise UsageError("give --device or --devices, not both")
    several = tuple(parse_devices(devices))
    return several[0], several


def choose_dtype(name: str, device: torch.device) -> torch.dtype:
    """The dtype of that name; ``auto`` is float32 on CPUs and a 16-bit one on GPUs."""
    if name != "auto":
        return _DTYPES[name]
    if device.type == "cpu":
        return torch.float32
    return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16


@dataclass(frozen=True)
class _ReportingCheckpoint(Checkpoint):
    """A checkpoint that says when it has read a tensor."""

    on_tensor: Callable[[], object]

    @classmethod
    def wrap(cls, checkpoint: Checkpoint, on_tensor: Callable[[], object]) -> _ReportingCheckpoint:
        facts = {item.name: getattr(checkpoint, item.name) for item in fields(checkpoint)}
        return cls(**facts, on_tensor=on_tensor)

    def read(
        self, names: Iterable[str], *, part: str = "caller"
    ) -> Iterator[tuple[str, torch.Tensor]]:
        """See :meth:`Checkpoint.read`."""
        for named_tensor in super().read(names, part=part):
            self.on_tensor()
            yield named_tensor


def _attention(checkpoint: Checkpoint, pool: KVPool) -> tuple[Attend, Recorder | None]:
    """The fastest attention here, and what records steps where they can be recorded."""
    attend = best_attention(pool, checkpoint.config.num_attention_heads, varlen_kernel())
    capped = getattr(checkpoint.config, "attn_logit_softcapping", None) is not None
    fixed = isinstance(attend, PagedAttention) and not capped
    return attend, cuda_recorder if fixed else None


def load_service(
    checkpoint: Checkpoint, settings: TrunkSettings
) -> tuple[BatchingEngine, ServerOffer]:
    """Read the trunk's tensors and describe them for the handshake.

    Raises:
        UsageError: more positions asked for than the model has, or than fit into the memory.
        SplitImpossible: the split does not fit the model.
        CheckpointError: the tensors cannot be read.
    """
    settings.split.check(checkpoint.layer_count)
    layers = settings.split.trunk(checkpoint.layer_count)
    if (settings.max_positions or 0) > checkpoint.max_positions:  # before a model is read
        raise UsageError(
            f"--max-positions {settings.max_positions}: the model has {checkpoint.max_positions} "
            "positions"
        )
    is_spread = len(settings.devices) > 1
    names = checkpoint.layer_tensors(layers)
    with tqdm(total=len(names), desc="reading the trunk", unit=" tensors", disable=None) as bar:
        trunk = load_trunk(
            _ReportingCheckpoint.wrap(checkpoint, bar.update),
            layers,
            dtype=settings.dtype,
            # What is larger than one device cannot be loaded there first.
            device="cpu" if is_spread else settings.device,
            attention=required_attention(),
        )
    devices = spread(trunk, settings.devices) if is_spread else [settings.device]
    if settings.device.type == "cpu" and not is_spread:
        pack_linear_layers(trunk)
    geometry = KVGeometry(
        layers=layers,
        kv_heads=checkpoint.kv_heads,
        head_dim=checkpoint.head_dim,
        dtype=settings.dtype,
        devices=devices,
    )
    pool, max_positions = make_pool(
        geometry,
        KVSettings(
            max_sessions=settings.max_sessions,
            model_positions=checkpoint.max_positions,
            max_positions=settings.max_positions,
            memory=settings.kv_memory,
            block_positions=settings.block_positions,
        ),
    )
    attend, record = _attention(checkpoint, pool)
    if is_spread:
        record = None  # a recorded step stays on its device
    engine = BatchingEngine(
        trunk,
        width=checkpoint.hidden_size,
        dtype=settings.dtype,
        pool=pool,
        max_sessions=settings.max_sessions,
        max_positions=max_positions,
        attend=attend,
        record=record,
    )
    offer = ServerOffer(
        fingerprint=checkpoint.fingerprint,
        hidden_size=checkpoint.hidden_size,
        layer_count=checkpoint.layer_count,
        layers=layers,
        max_positions=max_positions,
        witnesses=checkpoint.witness_digests(names),
    )
    _logger.info(
        "%s: layers %d to %d of %d, %s on %s, fingerprint %s",
        checkpoint.id,
        layers.start,
        layers.stop - 1,
        checkpoint.layer_count,
        str(settings.dtype).removeprefix("torch."),
        ", ".join(str(device) for device in settings.devices or (settings.device,)),
        checkpoint.fingerprint,
    )
    return engine, offer
