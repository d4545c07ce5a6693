"""What all solvers are: a table of weights, one row a step.

Every solver's step is a weighted sum of the latents, the denoiser's output, the picture that they
predict, the picture predicted a step before, and fresh noise. So a solver is nothing but its table,
computed when it is made: there are no counters, and any step can be computed again from its state,
on either side. Sums are float64, in one order, and rounded to float32 once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["Latents", "Row", "Solver", "SolverState", "Weights"]

Latents = npt.NDArray[np.float32]
_Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Weights:
    """What each ingredient of a sum counts.

    Attributes:
        sample: The latents before the step.
        output: What the denoiser returned.
        original: The predicted original: the latents as they would be without noise.
        memory: The predicted original of the step before.
        noise: Fresh noise of variance 1.
    """

    sample: float = 0.0
    output: float = 0.0
    original: float = 0.0
    memory: float = 0.0
    noise: float = 0.0


_AS_PREDICTED = Weights(original=1.0)


@dataclass(frozen=True, slots=True)
class Row:
    """One step.

    Attributes:
        timestep: What the denoiser is told.
        predicted: The predicted original, of sample and output; it is clipped if the solver clips.
        following: The latents after the step.
        denoised: The picture to show, and to remember, of sample and predicted original.
        input_scale: What the latents are multiplied by for the denoiser.
    """

    timestep: float
    predicted: Weights
    following: Weights
    denoised: Weights = _AS_PREDICTED
    input_scale: float = 1.0


@dataclass(frozen=True, eq=False, slots=True)
class SolverState:
    """All that a step needs besides the denoiser's output; arrays are float32 (B, C, H, W).

    Attributes:
        sample: The latents.
        memory: Predicted originals of earlier steps, as many as :meth:`Solver.memory_count` says.
    """

    sample: Latents
    memory: tuple[Latents, ...] = ()


@dataclass(frozen=True, slots=True)
class Solver:
    """Steps from noise to latents without noise.

    Attributes:
        rows: The steps, the noisiest first.
        init_noise_sigma: What noise of variance 1 is multiplied by to start.
        clip_range: Predicted originals are clipped to plus and minus this; None is not at all.
    """

    rows: tuple[Row, ...]
    init_noise_sigma: float = 1.0
    clip_range: float | None = None

    @property
    def steps(self) -> int:
        """How often the denoiser runs."""
        return len(self.rows)

    @property
    def timesteps(self) -> tuple[float, ...]:
        """What the denoiser is told in each step; a whole number where the solver's are."""
        return tuple(row.timestep for row in self.rows)

    def needs_noise(self, step: int) -> bool:
        """Whether this step draws fresh noise."""
        return self.rows[step].following.noise != 0.0

    def memory_count(self, step: int) -> int:
        """How many arrays a state holds before this step (``steps`` being after the last)."""
        return int(step < self.steps and self.rows[step].following.memory != 0.0)

    def start(self, noise: Latents) -> SolverState:
        """The state before the first step, from noise of variance 1, float32 (B, C, H, W)."""
        return SolverState(_rounded(_sum((self.init_noise_sigma, noise))))

    def scale_input(self, sample: Latents, step: int) -> Latents:
        """The latents as the denoiser wants them: float32 (B, C, H, W), maybe the same array."""
        scale = self.rows[step].input_scale
        return sample if scale == 1.0 else _rounded(_sum((scale, sample)))

    def predicted_original(self, output: Latents, step: int, state: SolverState) -> Latents:
        """The picture's latents as far as this step can tell, for a preview.

        Args:
            output: The denoiser's, float32 (B, C, H, W).
            step: Counted from 0.
            state: The state before the step.

        Returns:
            float32 (B, C, H, W).

        Raises:
            ValueError: the two have different shapes.
        """
        row = self.rows[step]
        return _rounded(self._denoised(row, state.sample, self._predicted(row, output, state)))

    def step(
        self, output: Latents, step: int, state: SolverState, noise: Latents | None = None
    ) -> SolverState:
        """Compute the state after a step.

        Values that overflow float32 become infinite; nothing is raised for them.

        Args:
            output: The denoiser's, float32 (B, C, H, W).
            step: Counted from 0.
            state: The state before the step; it is not changed.
            noise: Noise of variance 1, float32 (B, C, H, W), where :meth:`needs_noise`; it is not
                looked at elsewhere.

        Raises:
            ValueError: arrays of different shapes, noise that is missing, or a state of another
                step.
        """
        row = self.rows[step]
        weights = row.following
        memory = self._memory(step, state)
        if weights.noise == 0.0:
            noise = None
        elif noise is None:
            raise ValueError(f"step {step} of this solver needs noise")
        _check_shapes(state.sample, memory, noise)
        predicted = self._predicted(row, output, state)
        denoised = self._denoised(row, state.sample, predicted)
        sample = _sum(
            (weights.sample, state.sample),
            (weights.output, output),
            (weights.original, denoised),
            (weights.memory, memory),
            (weights.noise, noise),
        )
        kept = (_rounded(denoised),) if self.memory_count(step + 1) else ()
        return SolverState(_rounded(sample), kept)

    def _memory(self, step: int, state: SolverState) -> Latents | None:
        expected = self.memory_count(step)
        if len(state.memory) != expected:
            raise ValueError(f"step {step} needs {expected} remembered, not {len(state.memory)}")
        return state.memory[0] if expected else None

    def _predicted(self, row: Row, output: Latents, state: SolverState) -> _Doubles:
        _check_shapes(state.sample, output)
        weights = row.predicted
        predicted = _sum((weights.sample, state.sample), (weights.output, output))
        if self.clip_range is not None:
            np.clip(predicted, -self.clip_range, self.clip_range, out=predicted)
        return predicted

    @staticmethod
    def _denoised(row: Row, sample: Latents, predicted: _Doubles) -> _Doubles:
        if row.denoised == _AS_PREDICTED:
            return predicted
        return _sum((row.denoised.sample, sample), (row.denoised.original, predicted))


def _check_shapes(sample: Latents, *others: Latents | None) -> None:
    # numpy would repeat a smaller array in silence.
    for other in others:
        if other is not None and other.shape != sample.shape:
            raise ValueError(f"shapes differ: {other.shape} and {sample.shape}")


def _sum(*terms: tuple[float, Latents | _Doubles | None]) -> _Doubles:
    """float64: the weighted arrays one after another; those of weight 0 are left out."""
    total: _Doubles | None = None
    for weight, values in terms:
        if weight == 0.0 or values is None:
            continue
        part = np.multiply(values, weight, dtype=np.float64)
        if total is None:
            total = part
        else:
            total += part
    if total is None:
        raise ValueError("a sum without terms")
    return total


def _rounded(values: _Doubles) -> Latents:
    with np.errstate(over="ignore"):  # infinity, as said above
        return values.astype(np.float32)
