"""The prompt from the text encoders' output, by search through the public encoders.

CLIP's text encoders are causal: what comes out at a position depends on the tokens up to it. So a
prompt is found from its beginning on, a position at a time: every token of the vocabulary is put
behind those that are known already, and the one whose output is nearest to what crossed is taken.
With two encoders (SDXL) both outputs have to fit the same token.

All candidates of a position are one sequence behind the known tokens, each at the same position and
masked so that it sees the known ones and itself, which is what it would see alone.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch

from audit.pictures.model import PublicEncoder, PublicModel
from export.progress import Progress, QuietProgress
from lambda_split.errors import UsageError

__all__ = ["PromptAttack", "PromptFound", "attack_prompts", "find_prompts"]

Floats = npt.NDArray[np.float32]
_BATCH = 2048
_SEARCHING = "searching the prompts' tokens"


@dataclass(frozen=True)
class PromptFound:
    """What was found of one prompt.

    Attributes:
        wanted: The prompt.
        found: What the search says that it is.
        recovered: Tokens of the prompt that stand in the right place of what was found.
        tokens: Tokens of the prompt, without those that begin, end and pad.
        off: How far the outputs of what was found are from those that crossed: the mean over the
            positions, as a share of their length.
    """

    wanted: str
    found: str
    recovered: int
    tokens: int
    off: float


@dataclass(frozen=True)
class PromptAttack:
    """What was found of all prompts.

    Attributes:
        prompts: Of each.
        candidates: Tokens that were tried at each position.
        seconds: For all of them together.
    """

    prompts: tuple[PromptFound, ...]
    candidates: int
    seconds: float

    @property
    def recovered(self) -> int:
        """Tokens that were found in their place."""
        return sum(one.recovered for one in self.prompts)

    @property
    def total(self) -> int:
        """Tokens of the prompts."""
        return sum(one.tokens for one in self.prompts)

    @property
    def texts(self) -> tuple[str, ...]:
        """What the search says that the prompts are."""
        return tuple(one.found for one in self.prompts)


@dataclass(eq=False)
class _Row:
    """A prompt on its way: indices into the shared vocabulary."""

    context: torch.Tensor  # (tokens, width)
    found: list[int]
    distances: list[float] = field(default_factory=list)
    ended: bool = False


@dataclass(frozen=True, eq=False)
class _Vocabulary:
    """The tokens that all encoders know: (shared,) their ids for each encoder."""

    ids: tuple[torch.Tensor, ...]
    start: int
    end: int

    @classmethod
    def of(cls, encoders: Sequence[PublicEncoder]) -> _Vocabulary:
        tables = [encoder.tokenizer.tokenizer.get_vocab() for encoder in encoders]
        shared = sorted(
            (set(tables[0]).intersection(*tables[1:])), key=lambda token: tables[0][token]
        )
        first, last = encoders[0].tokenizer.tokenizer.encode("").ids
        place = {tables[0][token]: number for number, token in enumerate(shared)}
        ids = tuple(torch.tensor([table[token] for token in shared]) for table in tables)
        return cls(ids, place[first], place[last])


def find_prompts(
    encoders: Sequence[PublicEncoder],
    contexts: Sequence[Floats],
    *,
    limit: int | None = None,
    batch: int = _BATCH,
    progress: Progress | None = None,
) -> list[tuple[list[int], float]]:
    """Search for prompts.

    Args:
        encoders: The public ones, in the order in which their outputs are joined.
        contexts: What crossed of each prompt, float32 (tokens, sum of widths).
        limit: Try only so many tokens at each position: those whose embeddings point most nearly
            where the output points, less the position's own. None tries all, which is exact.
        batch: Candidates that are in an encoder at a time, of all prompts together.
        progress: Told of each position.

    Returns:
        Of each prompt its token ids, those of the first encoder, without the ones that begin and
        end it; and how far off their outputs are, as in :class:`PromptFound`.

    Raises:
        UsageError: a limit or batch below 1, or outputs of another width than the encoders'.
    """
    if (limit is not None and limit < 1) or batch < 1:
        raise UsageError("at least one candidate has to be tried at a time")
    widths = [encoder.width for encoder in encoders]
    if any(context.ndim != 2 or context.shape[1] != sum(widths) for context in contexts):
        raise UsageError(f"encodings of another shape than (tokens, {sum(widths)})")
    vocabulary = _Vocabulary.of(encoders)
    told = progress or QuietProgress()
    rows = [_Row(torch.from_numpy(context), [vocabulary.start]) for context in contexts]
    positions = max((len(context) for context in contexts), default=0)
    told.stage(_SEARCHING, max(positions - 1, 0))
    for position in range(1, positions):
        active = [row for row in rows if not row.ended and position < len(row.context)]
        if active:
            _find_position(encoders, vocabulary, active, position, limit=limit, batch=batch)
        told.advance()
    ids = vocabulary.ids[0].tolist()
    return [
        (
            [ids[one] for one in row.found[1:] if one != vocabulary.end],
            float(np.mean(row.distances)) if row.distances else 0.0,
        )
        for row in rows
    ]


def attack_prompts(
    model: PublicModel,
    contexts: Sequence[Floats],
    wanted: Sequence[str],
    *,
    limit: int | None = None,
    batch: int = _BATCH,
    progress: Progress | None = None,
) -> PromptAttack:
    """Search for prompts, and count what was found.

    Args:
        model: The public one.
        contexts: What crossed of each, float32 (tokens, width).
        wanted: What the prompts are: only to count with.
        limit: See :func:`find_prompts`.
        batch: As well.
        progress: Told of each position.

    Raises:
        UsageError: as :func:`find_prompts`; or there are not as many contexts as prompts.
    """
    if len(contexts) != len(wanted):
        raise UsageError(f"{len(contexts)} encodings of {len(wanted)} prompts")
    began = time.perf_counter()
    found = find_prompts(model.encoders, contexts, limit=limit, batch=batch, progress=progress)
    seconds = time.perf_counter() - began
    tokenizer = model.encoders[0].tokenizer
    known = len(_Vocabulary.of(model.encoders).ids[0])
    results = []
    for (ids, off), prompt in zip(found, wanted, strict=True):
        # The device cuts what is too long, and its end token closes what is left.
        true = tokenizer.tokenizer.encode(prompt).ids[1:-1][: tokenizer.max_tokens - 2]
        results.append(
            PromptFound(
                wanted=prompt,
                found=_text(tokenizer.tokenizer.decode(ids, skip_special_tokens=True)),
                recovered=sum(one == other for one, other in zip(ids, true, strict=False)),
                tokens=len(true),
                off=off,
            )
        )
    candidates = known if limit is None else min(limit, known)
    return PromptAttack(tuple(results), candidates, seconds)


def _text(decoded: str) -> str:
    """Words as CLIP's vocabulary marks their ends, with spaces instead."""
    return decoded.replace("</w>", " ").strip()


@torch.inference_mode()
def _find_position(
    encoders: Sequence[PublicEncoder],
    vocabulary: _Vocabulary,
    rows: Sequence[_Row],
    position: int,
    *,
    limit: int | None,
    batch: int,
) -> None:
    """Find the token of a position of each row."""
    wanted = torch.stack([row.context[position] for row in rows])  # (n, width)
    known = torch.tensor([row.found for row in rows])  # (n, position)
    candidates = _candidates(encoders, vocabulary, wanted, position, limit)  # (n, candidates)
    distances = torch.cat(
        [
            _distances(encoders, vocabulary, known, part, wanted)
            for part in torch.split(candidates, max(1, batch // len(rows)), dim=1)
        ],
        dim=1,
    )
    best = distances.argmin(dim=1)
    for number, row in enumerate(rows):
        token = int(candidates[number, best[number]])
        row.found.append(token)
        row.distances.append(float(distances[number, best[number]]))
        row.ended = token == vocabulary.end


def _distances(
    encoders: Sequence[PublicEncoder],
    vocabulary: _Vocabulary,
    known: torch.Tensor,
    candidates: torch.Tensor,
    wanted: torch.Tensor,
) -> torch.Tensor:
    """How far each candidate's output is from what crossed, as a share of that: (n, candidates)."""
    before, count = known.shape[1], candidates.shape[1]
    tokens = torch.cat([known, candidates], dim=1)  # (n, before + count)
    positions = torch.cat([torch.arange(before), torch.full((count,), before)])
    mask = torch.eye(before + count, dtype=torch.bool)
    mask[:before, :before] = torch.ones(before, before, dtype=torch.bool).tril()
    mask[before:, :before] = True
    squares = torch.zeros(candidates.shape)
    split = torch.split(wanted, [encoder.width for encoder in encoders], dim=1)
    for encoder, ids, part in zip(encoders, vocabulary.ids, split, strict=True):
        outputs = encoder.hidden(ids[tokens], positions, mask)[:, before:]  # (n, count, width)
        squares += (outputs - part[:, None]).square().sum(2) / part.square().sum(1)[:, None]
    return (squares / len(encoders)).sqrt()


def _candidates(
    encoders: Sequence[PublicEncoder],
    vocabulary: _Vocabulary,
    wanted: torch.Tensor,
    position: int,
    limit: int | None,
) -> torch.Tensor:
    """Which tokens are tried for each row: (n, candidates)."""
    shared = len(vocabulary.ids[0])
    if limit is None or limit >= shared:
        return torch.arange(shared).expand(len(wanted), -1)
    nearness = torch.zeros(len(wanted), shared)
    split = torch.split(wanted, [encoder.width for encoder in encoders], dim=1)
    for encoder, ids, part in zip(encoders, vocabulary.ids, split, strict=True):
        embeddings = encoder.text.embeddings
        tokens = torch.nn.functional.normalize(embeddings.token_embedding.weight[ids], dim=1)
        left = part - embeddings.position_embedding.weight[position]
        nearness += torch.nn.functional.normalize(left, dim=1) @ tokens.T  # (n, shared)
    return nearness.topk(limit, dim=1).indices
