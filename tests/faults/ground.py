"""What every fault stands on: a tiny model, its bundle, and generations with known ends."""

from __future__ import annotations

import pathlib
import random
from dataclasses import dataclass

from cloud.tokens import Grant, digest_of
from edge_runtime import RetryPolicy, TextGenerator
from edge_runtime.connection import make_hello
from edge_runtime.graphs import RuntimeSettings
from edge_runtime.sampling import SamplingSettings
from lambda_split.bundle import Bundle, load_bundle
from lambda_split.errors import LambdaSplitError
from lambda_split.wire.frames import Codec
from lambda_split.wire.messages import serialize_message
from tests.servers import serving

__all__ = [
    "HOSTILE_TOKEN",
    "MAX_POSITIONS",
    "Ground",
    "Script",
    "make_ground",
    "open_generator",
    "run_script",
    "serves",
]

MAX_POSITIONS = 256
# Tokens tell honest devices from hostile ones, which all share this machine's address.
HOSTILE_TOKEN = "h0stile"
_HONEST_TOKEN = "h0nest"
# A server that is killed is back within seconds; what a device gives up after is another test's.
PATIENT = RetryPolicy(first_delay_s=0.02, max_delay_s=0.5, give_up_after_s=180.0)


@dataclass(frozen=True)
class Script:
    """A generation that comes out the same every time."""

    prompt: tuple[int, ...]
    new_tokens: int
    sampling: SamplingSettings


@dataclass(frozen=True)
class Ground:
    """A model, its bundle, and what its generations give where nobody disturbs them.

    Attributes:
        model: The checkpoint's folder, for ``lambda-split serve``.
        bundle: Exported from it.
        hello: A device's first message, for clients that are made by hand.
        width: Hidden size.
        tokens: The file of a server that tells honest devices from hostile ones.
        scripts: Generations.
        expected: The token ids that each of them must give.
    """

    model: str
    bundle: Bundle
    hello: str
    width: int
    tokens: str
    scripts: tuple[Script, ...]
    expected: tuple[tuple[int, ...], ...]


def make_ground(folder: pathlib.Path, *, scripts: int = 8, seed: int = 0) -> Ground:
    """Export a tiny model, and run each script once on a server that has nothing else to do."""
    from export import ExportSettings, QuietProgress, export_bundle
    from tests.tiny_models import save_tiny

    model = folder / "model"
    save_tiny("llama", model)
    # Weights in int4 round activations to int8, which makes visible steps of the last bit's noise.
    settings = ExportSettings(weights="fp32")
    export_bundle(str(model), folder / "bundle", settings, progress=QuietProgress())
    bundle = load_bundle(folder / "bundle")
    chosen = _scripts(scripts, seed)
    with serving(str(model)) as server, open_generator(bundle, server.url) as generator:
        expected = tuple(run_script(generator, script) for script in chosen)
    hello = make_hello(bundle.manifest, (Codec.FP32,), MAX_POSITIONS)
    width = bundle.manifest.geometry.hidden_size
    tokens = _write_tokens(folder / "tokens")
    return Ground(str(model), bundle, serialize_message(hello), width, tokens, chosen, expected)


def _write_tokens(path: pathlib.Path) -> str:
    names = {"honest": _HONEST_TOKEN, "hostile": HOSTILE_TOKEN}
    lines = (Grant(name, digest_of(token)).line() for name, token in names.items())
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    path.chmod(0o600)
    return str(path)


def _scripts(count: int, seed: int) -> tuple[Script, ...]:
    rng = random.Random(seed)
    made = []
    for number in range(count):
        prompt = tuple(rng.randrange(3, 300) for _ in range(rng.choice((3, 17, 40, 100))))
        sampling = SamplingSettings(temperature=0.8, top_k=40, seed=seed + number)
        made.append(Script(prompt, rng.randrange(30, 60), sampling))
    return tuple(made)


def open_generator(bundle: Bundle, url: str) -> TextGenerator:
    """A device as users have it, on one core, that waits for a long time for its server."""
    return TextGenerator.open(
        bundle,
        url,
        token=_HONEST_TOKEN,  # which servers without a token file do not look at
        codec="fp32",  # as it is computed: nothing is rounded on the way
        max_positions=MAX_POSITIONS,
        chunk_tokens=32,
        runtime=RuntimeSettings(threads=1),
        retry=PATIENT,
    )


def run_script(generator: TextGenerator, script: Script) -> tuple[int, ...]:
    """The tokens that a script gives."""
    result = generator.generate(
        list(script.prompt), max_new_tokens=script.new_tokens, sampling=script.sampling
    )
    return result.token_ids


def serves(ground: Ground, url: str) -> bool:
    """Whether a new session's generation comes out right."""
    try:
        with open_generator(ground.bundle, url) as generator:
            return run_script(generator, ground.scripts[0]) == ground.expected[0]
    except LambdaSplitError:
        return False
