"""What the two sides of a picture's session agree on before a fuzzer has its way with one."""

from __future__ import annotations

from dataclasses import dataclass

from lambda_split.wire.messages import PictureHello, Welcome
from lambda_split.wire.pictures.handshake import AcceptedPictures, serves
from lambda_split.wire.tensor_format import TENSOR_FORMATS
from tests.fuzz.readings import Reading

__all__ = ["CONTEXT", "LATENTS", "STEPS", "Agreed"]

LATENTS, CONTEXT, STEPS = 30, 16, 3


@dataclass(frozen=True)
class Agreed:
    """What the handshake came to."""

    accepted: AcceptedPictures
    hello: PictureHello
    welcome: Welcome

    @classmethod
    def of(cls, reading: Reading) -> Agreed:
        split = reading.choice(("whole", "deep"))
        form = reading.choice([each for each in TENSOR_FORMATS if serves(each, split)])
        hello = PictureHello(
            protocol=1,
            fingerprint="00112233",
            split=split,
            formats=(form.label,),
            latents=LATENTS,
            context=CONTEXT,
            steps=STEPS,
        )
        welcome = Welcome(
            session="s", codec=form.label, max_positions=STEPS, max_chunk_tokens=1, max_in_flight=4
        )
        accepted = AcceptedPictures(split, form, LATENTS, CONTEXT, STEPS)
        return cls(accepted, hello, welcome)
