"""A model that can be cut: its config, the places of its tensors, its identity.

Opening reads the config and the index (or the only file's header). Shards are opened, and for a
Hub id downloaded, when tensors in them are read.
"""

from __future__ import annotations

import pathlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from transformers import PreTrainedConfig

from lambda_split.errors import AdapterError, CheckpointNotFound, UsageError
from lambda_split.partition.adapters import ADAPTER_CONFIG, Adapter, open_adapter
from lambda_split.partition.config import head_dim, kv_heads, parse_config
from lambda_split.partition.families import find_family, layer_windows, max_positions
from lambda_split.partition.files import LocalFolder, ModelFiles
from lambda_split.partition.fingerprint import choose_witnesses, fingerprint, tensor_digest
from lambda_split.partition.sources import open_files
from lambda_split.partition.tensors import Shards, index_shards
from lambda_split.split import Split

__all__ = ["Checkpoint", "open_checkpoint"]

_CONFIG = "config.json"
_DEMO = "demo"
_DEMO_FOLDER = pathlib.Path(__file__).parents[1] / "demo_models" / "text"


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """An opened checkpoint; tensors are named as in the whole causal language model.

    Attributes:
        id: Hub id, or the name of the local folder.
        revision: The Hub commit, where there is one.
        family: transformers' ``model_type``.
        config: The model's config. Shared: copy it before changing it.
        tensor_names: All tensors of the checkpoint, sorted.
        fingerprint: 32 hexadecimal characters; see :mod:`lambda_split.partition.fingerprint`.
        lora: Names of the merged adapters, in order.
        windows: For each layer, its sliding window or None.
    """

    id: str
    revision: str | None
    family: str
    config: PreTrainedConfig = field(repr=False)
    tensor_names: tuple[str, ...] = field(repr=False)
    fingerprint: str
    lora: tuple[str, ...]
    windows: tuple[int | None, ...] = field(repr=False)
    _files: ModelFiles = field(repr=False)
    _shards: Shards = field(repr=False)
    _adapters: tuple[Adapter, ...] = field(repr=False)

    @property
    def layer_count(self) -> int:
        """Decoder layers of the whole model."""
        count: int = self.config.num_hidden_layers
        return count

    @property
    def hidden_size(self) -> int:
        """Width of the hidden states."""
        width: int = self.config.hidden_size
        return width

    @property
    def vocab_size(self) -> int:
        """Number of logits."""
        size: int = self.config.vocab_size
        return size

    @property
    def max_positions(self) -> int:
        """Positions that the model is valid for; see :func:`families.max_positions`."""
        return max_positions(self.config)

    @property
    def kv_heads(self) -> int:
        """Key-value heads of each layer."""
        return kv_heads(self.config)

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return head_dim(self.config)

    @property
    def embedding_name(self) -> str:
        """The token embedding's tensor."""
        family = find_family(self.family)
        return f"{family.base}.{family.embedding}.weight"

    @property
    def lm_head_name(self) -> str:
        """The tensor that the LM head uses: its own if there is one, else the tied embedding.

        transformers does the same: a head that is stored wins over ``tie_word_embeddings``.
        """
        own = f"{find_family(self.family).lm_head}.weight"
        tied = bool(self.config.tie_word_embeddings) and own not in self._shards.locations
        return self.embedding_name if tied else own

    def layer_tensors(self, layers: range) -> tuple[str, ...]:
        """The stored tensors of these decoder layers, layer by layer."""
        family = find_family(self.family)
        prefix = f"{family.base}.{family.layers}."
        by_layer: dict[int, list[str]] = {number: [] for number in layers}
        for name in self.tensor_names:
            number = name.removeprefix(prefix).partition(".")[0]
            if name.startswith(prefix) and number.isdecimal() and int(number) in by_layer:
                by_layer[int(number)].append(name)
        return tuple(name for names in by_layer.values() for name in names)

    def witnesses(self, split: Split) -> dict[str, str]:
        """Trunk tensors that export sees without opening more shards, with their digests.

        Raises:
            SplitImpossible: the split does not fit the model.
            CheckpointInvalid: a shard is missing or malformed.
        """
        split.check(self.layer_count)
        trunk = self.layer_tensors(split.trunk(self.layer_count))
        opened = self._shards.shards_of(set(self.tensor_names).difference(trunk))
        seen = [name for name in trunk if self._shards.locations[name].shard in opened]
        return self.witness_digests(choose_witnesses(self._shards.shapes(seen)))

    def witness_digests(self, names: Iterable[str]) -> dict[str, str]:
        """Digests of these tensors' dtype, shape and first bytes, as stored (without adapters).

        Raises:
            TensorMissing: the checkpoint has no such tensor.
            CheckpointInvalid: a shard is missing or malformed.
        """
        return {name: tensor_digest(tensor) for name, tensor in self._shards.read(names)}

    def read(
        self, names: Iterable[str], *, part: str = "caller"
    ) -> Iterator[tuple[str, torch.Tensor]]:
        """Each named tensor with the adapters merged, one at a time, on the CPU.

        A tensor may be backed by the mapped file; copy what is to be kept. Adapted ones come in
        float32, others in the stored dtype.

        Args:
            names: Tensors of the whole model.
            part: Who wants them, for the error.

        Raises:
            TensorMissing: the checkpoint has no such tensor.
            CheckpointInvalid: a shard is missing or malformed.
            AdapterError: an adapter does not fit a tensor.
        """
        for name, stored in self._shards.read(names, part=part):
            tensor = stored
            for adapter in self._adapters:
                tensor = adapter.merge(name, tensor)
            yield name, tensor
            del stored, tensor  # before the next one is read

    def text_file(self, name: str) -> pathlib.Path | None:
        """A local path to one of the checkpoint's other files, such as ``tokenizer.json``.

        Raises:
            UsageError: ``name`` is a path, not a file's name.
        """
        if pathlib.PurePosixPath(name).name != name:
            raise UsageError(f"{name!r} is not the name of a file")
        return self._files.find(name)


def open_checkpoint(
    model: str, *, revision: str | None = None, lora: Sequence[str] = ()
) -> Checkpoint:
    """Open a model for cutting.

    Args:
        model: A local folder, a Hugging Face id, or ``demo`` for the shipped one.
        revision: Branch, tag or commit, for a Hub id.
        lora: Folders or Hub ids of LoRA adapters to merge, in order.

    Raises:
        CheckpointNotFound: there is no such folder, and the Hub has or gives no such model.
        CheckpointInvalid: its config, index or header is malformed.
        UnsafeWeights: it has pickled weights only.
        UnsupportedFamily: its architecture, or the way its weights are stored, cannot be cut.
        AdapterError: an adapter cannot be merged.
    """
    files: ModelFiles
    if model == _DEMO:
        files = LocalFolder(_DEMO, LocalFolder.open(_DEMO_FOLDER).path)
    else:
        files = open_files(model, revision, _CONFIG)
    config_path = files.find(_CONFIG)
    if config_path is None:
        raise CheckpointNotFound(model, f"the folder has no {_CONFIG}")
    family, config, raw = parse_config(config_path)
    windows = layer_windows(family, config)
    shards = index_shards(files, family)
    names = frozenset(shards.locations)
    adapters = tuple(
        open_adapter(open_files(adapter, None, ADAPTER_CONFIG), family, names) for adapter in lora
    )
    checkpoint = Checkpoint(
        id=files.id,
        revision=files.revision,
        family=family.name,
        config=config,
        tensor_names=tuple(sorted(names)),
        fingerprint=fingerprint(raw, names, [adapter.digest for adapter in adapters]),
        lora=tuple(adapter.name for adapter in adapters),
        windows=windows,
        _files=files,
        _shards=shards,
        _adapters=adapters,
    )
    _refuse_adapted_tie(checkpoint)
    return checkpoint


def _refuse_adapted_tie(checkpoint: Checkpoint) -> None:
    # Merging into a shared tensor would change the other user of it, which training did not do.
    if checkpoint.lm_head_name != checkpoint.embedding_name:
        return
    for adapter in checkpoint._adapters:  # noqa: SLF001 - this module's own class
        if checkpoint.embedding_name in adapter.targets:
            raise AdapterError(adapter.name, "it changes the embedding, which the LM head shares")
