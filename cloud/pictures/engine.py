"""An engine of one denoiser: steps of several pictures in one run of the UNet.

Rows of pictures of the same size go through the UNet together, as many as the memory allows; each
picture then takes its own step. Nothing is stored before all of a step has succeeded, so one that
fails leaves its picture as it was.
"""

from __future__ import annotations

import collections
import logging
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch

from cloud.engine import SessionCache
from cloud.engine.contract import PoolUse
from cloud.pictures.denoiser import Conditioning, Denoiser, guided
from cloud.pictures.place import Picture, Place, state_at
from cloud.pictures.works import PictureResult, PictureWork
from lambda_split.counting import counted
from lambda_split.diffusion.solver import SolverState
from lambda_split.errors import (
    CapacityRefused,
    PictureImpossible,
    PictureRefused,
    PositionBeyondEnd,
    PositionGap,
    SchedulerUnsupported,
    SessionEvicted,
    UsageError,
)
from lambda_split.wire.pictures.handshake import AcceptedPictures
from lambda_split.wire.pictures.layout import FLOAT_BYTES, DenoiserGeometry, state_shape
from lambda_split.wire.pictures.server_session import MAX_STATE_TENSORS, PictureStart
from lambda_split.wire.pictures.settings import PictureSettings
from lambda_split.wire.pictures.trajectory import Trajectory
from lambda_split.wire.tensor_codecs import decode, encode
from lambda_split.wire.tensor_format import TensorFormat

__all__ = ["DenoisingEngine"]

_logger = logging.getLogger(__name__)
_RETRY_S = 5  # somebody has to leave first
Tensor = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class _Run:
    """A step that is ready to run: its rows, and what goes on from there."""

    work: PictureWork
    place: Place
    picture: Picture
    inputs: torch.Tensor  # float32 (rows, C, H, W): latents as the solver scales them, or features
    timestep: float
    state: SolverState | None
    reference: Tensor | None

    @property
    def kind(self) -> tuple[object, ...]:
        """What rows that run together have in common."""
        trajectory = self.picture.trajectory is not None
        return trajectory, self.inputs.shape[1:], self.picture.conditioning.context.shape[1:]


class DenoisingEngine:
    """Runs pictures' steps; see :class:`~cloud.engine.Stepping`.

    Args:
        denoiser: The UNet.
        geometry: Its measures.
        max_sessions: The most sessions at a time.
        max_rows: The most latent positions (rows × height × width) of one run of the UNet.
        memory: Bytes for what all sessions keep between steps.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        *,
        geometry: DenoiserGeometry,
        max_sessions: int,
        max_rows: int,
        memory: int,
    ) -> None:
        self._denoiser = denoiser
        self._geometry = geometry
        self._max_sessions = max_sessions
        self._max_rows = max_rows
        self._memory = memory
        self._places: dict[SessionCache, Place] = {}

    def open(self, accepted: AcceptedPictures) -> SessionCache:
        """Make room for a session.

        Raises:
            CapacityRefused: too many are open, or there is no memory for what it keeps.
            PictureRefused: there would be none for it alone.
        """
        geometry = self._geometry
        positions = accepted.max_context * (geometry.context_width + geometry.pooled_width)
        latents = (MAX_STATE_TENSORS + 1) * geometry.channels * accepted.max_latents
        nbytes = FLOAT_BYTES * (positions + latents)
        if nbytes > self._memory:
            limit = self._memory // (FLOAT_BYTES * (MAX_STATE_TENSORS + 1) * geometry.channels)
            raise PictureRefused("latent positions", accepted.max_latents, limit)
        if len(self._places) >= self._max_sessions:
            raise CapacityRefused(f"the most is {counted(self._max_sessions, 'session')}", _RETRY_S)
        taken = sum(place.nbytes for place in self._places.values())
        if taken + nbytes > self._memory:
            raise CapacityRefused("the memory is taken by other sessions", _RETRY_S)
        session = SessionCache(range(1), accepted.max_steps)
        self._places[session] = Place(nbytes)
        return session

    def reserve(self, session: SessionCache, end: int) -> bool:
        """Its memory was taken when the session was opened."""
        del session, end
        return True

    def step(self, batch: Sequence[PictureWork]) -> Iterator[PictureResult | Exception]:
        """Run works of different sessions; see :meth:`Stepping.step`."""
        began = time.perf_counter()
        outcomes: dict[SessionCache, PictureResult | Exception] = {}
        groups: dict[tuple[object, ...], list[_Run]] = collections.defaultdict(list)
        for work in batch:
            try:
                run = self._prepare(work)
            except Exception as error:  # noqa: BLE001 - handed to the one who asked
                outcomes[work.session] = error
            else:
                if run is None:
                    outcomes[work.session] = PictureResult(b"", _micros_since(began))
                else:
                    groups[run.kind].append(run)
        for group in groups.values():
            for runs in self._portions(group):
                outcomes |= self._run(runs)
        for work in batch:
            yield outcomes[work.session]

    def revert(self, session: SessionCache) -> None:
        """Take back the session's last request."""
        if (place := self._places.get(session)) is not None:
            place.revert()

    def close(self, session: SessionCache) -> None:
        """Free a session's memory; closing twice is harmless."""
        self._places.pop(session, None)

    def interrupt(self) -> None:
        """From any thread: end a running step at the UNet's next block."""
        self._denoiser.interrupt()

    @property
    def open_sessions(self) -> int:
        """Sessions that have a place."""
        return len(self._places)

    @property
    def pool_use(self) -> PoolUse:
        """Places that are taken; a session's memory does not grow."""
        return PoolUse(len(self._places), self._max_sessions, 1)

    # --- a step -----------------------------------------------------------------------------------

    def _prepare(self, work: PictureWork) -> _Run | None:
        """What a work needs of the UNet; None where it only begins a picture."""
        place = self._places.get(work.session)
        if place is None:
            raise SessionEvicted
        if isinstance(work.asked, PictureStart):
            place.move(self._begin(work.asked, work.tensors))
            return None
        step, picture = work.asked.frame.step, place.picture
        if picture is None or picture.settings is not work.asked.settings:
            raise PositionGap(step, 0)  # the picture that this step is of could not begin
        if picture.trajectory is not None and step >= picture.trajectory.solver.steps:
            # A clipped schedule has fewer steps than were asked for.
            raise PositionBeyondEnd(step + 1, picture.trajectory.solver.steps)
        if picture.trajectory is None:
            inputs, state, reference = work.tensors[0], None, None
            timestep = picture.settings.timesteps[step]
        else:
            state, reference = state_at(picture, step, work.tensors, work.asked.frame.format)
            scaled = picture.trajectory.solver.scale_input(state.sample, step)
            inputs = np.concatenate([scaled] * picture.settings.branches)  # (rows, C, H, W)
            timestep = picture.trajectory.solver.timesteps[step]
        return _Run(work, place, picture, torch.from_numpy(inputs), timestep, state, reference)

    def _begin(self, asked: PictureStart, tensors: list[Tensor]) -> Picture:
        settings = asked.settings
        trajectory = None
        if settings.denoising is not None:
            try:
                _, channels, height, width = state_shape(settings, self._geometry)
                trajectory = Trajectory.of(
                    settings.denoising, settings.images, (channels, height, width)
                )
            except (SchedulerUnsupported, UsageError) as error:
                raise PictureImpossible(str(error)) from error
        return Picture(settings, self._conditioning(tensors), trajectory)

    def _conditioning(self, tensors: list[Tensor]) -> Conditioning:
        """What the device sent, one row for each prompt: rows for each image would be many."""
        denoiser = self._denoiser
        context, *pooled = (
            torch.from_numpy(tensor).to(denoiser.device, denoiser.dtype) for tensor in tensors
        )
        return Conditioning(context, pooled[0] if pooled else None)

    def _told(self, picture: Picture) -> Conditioning:
        """The conditioning of all rows: each prompt's images, then the negative prompts'."""
        settings, sent, denoiser = picture.settings, picture.conditioning, self._denoiser
        rows = settings.images * settings.branches
        time_ids = guidance = None
        if settings.time_ids:
            time_ids = torch.tensor(settings.time_ids, device=denoiser.device, dtype=denoiser.dtype)
            time_ids = time_ids[None].expand(rows, -1)  # (6,) -> (rows, 6)
        if settings.guidance_embedding is not None:
            guidance = torch.full((rows,), settings.guidance_embedding, device=denoiser.device)
        pooled = None if sent.pooled is None else _rows(settings, sent.pooled)
        return Conditioning(_rows(settings, sent.context), pooled, time_ids, guidance)

    def _portions(self, runs: list[_Run]) -> Iterator[list[_Run]]:
        """As many runs at a time as the memory allows, at least one."""
        portion: list[_Run] = []
        rows = 0
        for run in runs:
            size = len(run.inputs) * math.prod(run.inputs.shape[2:])
            if portion and rows + size > self._max_rows:
                yield portion
                portion, rows = [], 0
            portion.append(run)
            rows += size
        yield portion

    def _run(self, runs: list[_Run]) -> dict[SessionCache, PictureResult | Exception]:
        """Runs of one kind, through the UNet together."""
        began = time.perf_counter()
        outcomes: dict[SessionCache, PictureResult | Exception] = {}
        try:
            outputs = self._denoise(runs)
        except Exception as error:  # noqa: BLE001 - handed to the one who asked
            if len(runs) > 1:  # one of them may be at fault: alone, it fails alone
                for run in runs:
                    outcomes |= self._run([run])
                return outcomes
            if not isinstance(error, torch.OutOfMemoryError):
                return {runs[0].work.session: error}
            torch.cuda.empty_cache()
            _logger.warning("no memory for a step of %d rows", len(runs[0].inputs))
            return {runs[0].work.session: PictureImpossible("no memory for the step")}
        micros = _micros_since(began)
        for run, output in zip(runs, outputs, strict=True):
            try:
                outcomes[run.work.session] = PictureResult(self._go_on(run, output), micros)
            except Exception as error:  # noqa: BLE001 - handed to the one who asked
                outcomes[run.work.session] = error
        return outcomes

    def _denoise(self, runs: list[_Run]) -> list[Tensor]:
        """Each run's output, after guidance: float32 (images, C, H, W), or features of all rows."""
        inputs = torch.cat([run.inputs for run in runs])  # (rows of all, C, H, W)
        timesteps = torch.cat([torch.full((len(run.inputs),), run.timestep) for run in runs])
        conditioning = Conditioning.together([self._told(run.picture) for run in runs])
        if runs[0].picture.trajectory is None:
            rows = self._denoiser.predict_inner(inputs, timesteps, conditioning)
            parts = torch.split(rows, [len(run.inputs) for run in runs])
        else:
            rows = self._denoiser.predict(inputs, timesteps, conditioning)
            of_each = torch.split(rows, [len(run.inputs) for run in runs])
            parts = tuple(
                _after_guidance(run.picture, part) for run, part in zip(runs, of_each, strict=True)
            )
        return [np.asarray(part.cpu().numpy(), np.float32) for part in parts]

    @staticmethod
    def _go_on(run: _Run, output: Tensor) -> bytes:
        """The answer's payload; the picture moves on where all went well.

        Raises:
            NonFinite: the output holds NaN or infinity.
            CodecOverflow: the format cannot hold it.
        """
        form: TensorFormat = run.work.asked.frame.format
        payload = encode(output, form, run.reference)
        trajectory, state = run.picture.trajectory, run.state
        if trajectory is None or state is None:
            return payload
        step = run.work.asked.frame.step
        known = decode(payload, form, output.shape, run.reference)
        taken = known if trajectory.denoising.synchronized else output
        following = trajectory.after(taken, step, state)
        run.place.move(replace(run.picture, step=step + 1, state=following, reference=known))
        return payload


def _rows(settings: PictureSettings, tensor: torch.Tensor) -> torch.Tensor:
    """(prompts or 2 × prompts, …) -> (images × branches, …)."""
    branches = [tensor[: settings.prompts]]
    if settings.negative == "sent":
        branches.append(tensor[settings.prompts :])
    elif settings.negative == "zeros":
        branches.append(torch.zeros_like(branches[0]))
    each = settings.images // settings.prompts
    return torch.cat([branch.repeat_interleave(each, dim=0) for branch in branches])


def _after_guidance(picture: Picture, rows: torch.Tensor) -> torch.Tensor:
    settings = picture.settings
    if settings.negative == "none":
        return rows
    return guided(rows, settings.images, settings.guidance, settings.rescale)


def _micros_since(began: float) -> int:
    return round((time.perf_counter() - began) * 1e6)
