"""How long the tensor codecs take, how much they write and how much they keep.

The tensor is that of a picture of 1024 × 1024 pixels, (1, 4, 128, 128), with Gaussian values, and
differences are to a reference that is off by a Gaussian a tenth as wide. Formats take turns, and
medians are printed as Markdown. All of it runs on one thread.

    python -m benchmarks.tensor_codecs                  every format, about ten seconds
    python -m benchmarks.tensor_codecs --formats int4,nf4,nf4-delta
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np
import numpy.typing as npt

from lambda_split.wire.tensor_codecs import decode, encode
from lambda_split.wire.tensor_format import TENSOR_FORMATS, TensorFormat

SHAPE = (1, 4, 128, 128)
FREED_BYTES = 8 << 20


def release_memory() -> None:
    """Free a block as large as any process that makes pictures has freed.

    Before the first such block glibc returns what is freed to the system at once, and the time is
    that of its page faults: up to 0.6 ms for a format.
    """
    np.ones(FREED_BYTES, np.uint8)


def formats(labels: str) -> list[TensorFormat]:
    """The formats of those names; all for an empty text."""
    if not labels:
        return list(TENSOR_FORMATS)
    found = [TensorFormat.from_label(label) for label in labels.split(",")]
    if None in found:
        raise SystemExit(f"an unknown format is in {labels!r}")
    return [form for form in found if form is not None]


def signal_to_noise(values: npt.NDArray[np.float32], found: npt.NDArray[np.float32]) -> float:
    """In decibels; infinite where nothing is lost."""
    error = float(np.mean((found.astype(np.float64) - values) ** 2))
    return float(10 * np.log10(values.var(dtype=np.float64) / error)) if error else float("inf")


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--formats", default="", help="their names, with commas; all by default")
    parser.add_argument("--repeats", type=int, default=101, help="turns (%(default)s)")
    args = parser.parse_args()
    chosen = formats(args.formats)

    random = np.random.default_rng(0)
    values = random.normal(size=SHAPE).astype(np.float32)
    reference = values + random.normal(0, 0.1, size=SHAPE).astype(np.float32)
    payloads = {form: encode(values, form, reference) for form in chosen}
    release_memory()
    encoding: dict[TensorFormat, list[float]] = {form: [] for form in chosen}
    decoding: dict[TensorFormat, list[float]] = {form: [] for form in chosen}
    for _ in range(args.repeats):
        for form in chosen:
            begin = time.perf_counter()
            encode(values, form, reference)
            between = time.perf_counter()
            decode(payloads[form], form, SHAPE, reference)
            end = time.perf_counter()
            encoding[form].append((between - begin) * 1e3)
            decoding[form].append((end - between) * 1e3)

    print("| format | encode, ms | decode, ms | together | bytes | SNR, dB |")
    print("|---|---|---|---|---|---|")
    for form in chosen:
        there, back = statistics.median(encoding[form]), statistics.median(decoding[form])
        kept = signal_to_noise(values, decode(payloads[form], form, SHAPE, reference))
        print(
            f"| {form.label} | {there:.2f} | {back:.2f} | {there + back:.2f} "
            f"| {len(payloads[form])} | {kept:.1f} |"
        )


if __name__ == "__main__":
    main()
