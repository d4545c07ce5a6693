"""A real server on a loopback socket, a device made of the contract only, and the reference."""

import asyncio
import contextlib
import pathlib
from dataclasses import dataclass

import numpy as np
import torch
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from cloud.connection import Limits
from cloud.engine import BatchingEngine, KVGeometry, KVPool
from cloud.listener import bind
from cloud.server import serve
from cloud.text import LanguageModel
from cloud.tokens import Grant, digest_of
from lambda_split.errors import LambdaSplitError
from lambda_split.partition import Checkpoint, GrowingKVCache, Trunk
from lambda_split.wire import codecs
from lambda_split.wire.frames import PROTOCOL_VERSION, Codec
from lambda_split.wire.handshake import ServerOffer
from lambda_split.wire.messages import Hello, Welcome
from lambda_split.wire.session import DeviceSession, Rejected

LAYERS = range(1, 5)
WIDTH = 64
POSITIONS = 96
BLOCK_POSITIONS = 16
# Times that no test waits for: a busy machine may need them.
LIMITS = Limits(max_chunk_tokens=80, max_in_flight=4, handshake_s=30, drain_s=20.0, goodbye_s=5.0)


@dataclass(frozen=True)
class Model:
    folder: pathlib.Path
    checkpoint: Checkpoint
    trunk: Trunk  # with the library's own attention: the reference
    served: Trunk  # the same weights, as the engine wants them

    def hello(self, **changes) -> Hello:
        wanted = {
            "protocol": PROTOCOL_VERSION,
            "fingerprint": self.checkpoint.fingerprint,
            "witnesses": {},
            "head_layers": 1,
            "tail_layers": 1,
            "hidden_size": WIDTH,
            "codecs": ("fp32",),
            "max_positions": POSITIONS,
            "agent": "test",
        }
        return Hello(**(wanted | changes))

    def offer(self) -> ServerOffer:
        names = self.checkpoint.layer_tensors(LAYERS)
        return ServerOffer(
            fingerprint=self.checkpoint.fingerprint,
            hidden_size=WIDTH,
            layer_count=self.checkpoint.layer_count,
            layers=LAYERS,
            max_positions=POSITIONS,
            witnesses=self.checkpoint.witness_digests(names),
        )

    def engine(
        self, *, max_sessions=16, trunk=None, dtype=torch.float32, blocks=None
    ) -> BatchingEngine:
        """An engine over a pool of ``blocks`` blocks; by default one in which all fit."""
        geometry = KVGeometry(
            layers=LAYERS,
            kv_heads=self.checkpoint.kv_heads,
            head_dim=self.checkpoint.head_dim,
            dtype=torch.float32,
            devices=[torch.device("cpu")],
        )
        lane = -(-POSITIONS // BLOCK_POSITIONS)
        pool = KVPool(
            geometry,
            block_positions=BLOCK_POSITIONS,
            blocks=max_sessions * lane if blocks is None else blocks,
            lane=lane,
        )
        return BatchingEngine(
            trunk or self.served,
            width=WIDTH,
            dtype=dtype,
            pool=pool,
            max_sessions=max_sessions,
            max_positions=POSITIONS,
        )


@contextlib.asynccontextmanager
async def serving(model, *, engine=None, limits=LIMITS, offer=None, **settings):
    listener = bind("127.0.0.1", 0)
    served = LanguageModel(
        engine or model.engine(), offer or model.offer(), limits.max_chunk_tokens
    )
    async with serve(
        served,
        listener,
        limits=limits,
        **settings,
    ) as url:
        yield url


def token_file(folder, *lines, **tokens):
    """A server's token file: raw lines, and the hash of each token under its name."""
    path = folder / "tokens"
    lines = [*lines, *(Grant(name, digest_of(token)).line() for name, token in tokens.items())]
    path.write_text("".join(f"{line}\n" for line in lines))
    path.chmod(0o600)
    return path


class Device:
    """The device's side: the contract's state machine on a socket, nothing else."""

    def __init__(self, socket, hello):
        self.socket = socket
        self.session = DeviceSession(hello)
        self.welcome = None

    @classmethod
    @contextlib.asynccontextmanager
    async def connected(cls, url, hello, *, token=None, ssl=None):
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        async with connect(
            url,
            compression=None,
            max_size=None,
            additional_headers=headers,
            close_timeout=2,
            ssl=ssl,
        ) as socket:
            device = cls(socket, hello)
            await socket.send(device.session.hello())
            device.welcome = device.session.receive_text(await socket.recv())
            assert isinstance(device.welcome, Welcome)
            yield device

    async def send(self, start, hidden, *, reply=None):
        encoded = codecs.encode(hidden, self.session.codec)
        reply = len(hidden) if reply is None else reply
        await self.socket.send(self.session.forward(start, len(hidden), encoded, reply=reply))

    async def receive(self):
        """The next reply (tokens, width) float32, or the error of a rejected forward."""
        message = await self.socket.recv()
        if isinstance(message, str):
            rejected = self.session.receive_text(message)
            assert isinstance(rejected, Rejected)
            return rejected.error
        frame = self.session.receive_binary(message)
        return codecs.decode(frame.payload, frame.codec, frame.tokens, WIDTH, scaled=frame.scaled)

    async def forward(self, start, hidden, *, reply=None):
        await self.send(start, hidden, reply=reply)
        return await self.receive()

    async def fatal(self):
        """The typed error that ends the connection, and the close code."""
        try:
            while True:
                await self.receive()
        except ConnectionClosed:
            return None, self.socket.close_code
        except LambdaSplitError as error:
            await self.socket.wait_closed()
            return error, self.socket.close_code


class Reference:
    """The trunk called directly, with the rule that a chunk first cuts the cache back."""

    def __init__(self, trunk, *, layers=LAYERS, codec=Codec.FP32, dtype=torch.float32):
        self.trunk, self.layers, self.codec, self.dtype = trunk, layers, codec, dtype
        self.cache = GrowingKVCache(POSITIONS, layers)

    def forward(self, start, hidden, *, reply=None):
        through = self._through_the_wire(hidden)
        with torch.inference_mode():
            self.cache.truncate(start)
            out = self.trunk(
                torch.from_numpy(through)[None].to(self.dtype),
                torch.arange(start, start + len(hidden))[None],
                self.cache,
                self.layers,
            )[0]
        reply = len(hidden) if reply is None else reply
        return self._through_the_wire(out.float().numpy()[len(hidden) - reply :])

    def _through_the_wire(self, hidden):
        encoded = codecs.encode(np.ascontiguousarray(hidden), self.codec)
        return codecs.decode(encoded.payload, self.codec, len(hidden), WIDTH, scaled=encoded.scaled)


def same(found, wanted, tolerance=1e-5) -> bool:
    """Equal but for rounding: rows that are computed together are rounded differently."""
    scale = np.abs(np.asarray(wanted)).max(initial=1e-30)
    return bool(np.abs(np.asarray(found) - np.asarray(wanted)).max(initial=0) <= tolerance * scale)


def hidden_states(tokens, seed=0):
    return np.random.default_rng(seed).normal(size=(tokens, WIDTH)).astype(np.float32)


def marked(tokens, mark):
    """Hidden states at which a ``fragile`` trunk fails."""
    hidden = hidden_states(tokens)
    hidden[-1, 0] = mark
    return hidden


def run(coroutine, timeout=120):
    return asyncio.run(asyncio.wait_for(coroutine, timeout))


async def refusal(url, hello):
    """The typed error that answers a hello, and the close code."""
    async with connect(url, compression=None) as socket:
        device = Device(socket, hello)
        await socket.send(device.session.hello())
        return await device.fatal()
