"""A scheduler around a real engine that records what it is asked, and waits to be let go."""

import threading

import torch

from cloud.forwards import Forward
from cloud.scheduler import Scheduler
from lambda_split.wire import codecs
from lambda_split.wire.frames import Codec, Frame, FrameKind
from tests.cloud.serving import LAYERS, POSITIONS, WIDTH, run


def room(engine, layers=LAYERS):
    """How a session of the usual size is opened."""
    return lambda: engine.open(layers, POSITIONS)


def forward(start, hidden, sequence=0, reply=None, codec=Codec.FP32):
    encoded = codecs.encode(hidden, codec)
    frame = Frame(
        kind=FrameKind.FORWARD,
        codec=codec,
        start=start,
        tokens=len(hidden),
        sequence=sequence,
        payload=encoded.payload,
        reply=len(hidden) if reply is None else reply,
    )
    return Forward(frame, WIDTH, torch.float32)


class Panic(BaseException):
    """What no code expects, as the panics of Rust extensions are."""


class Observed:
    """An engine whose calls are recorded, whose steps are held until the gate is open.

    ``step_fault`` and ``revert_fault``, where set, are raised instead of what they are named for.
    """

    def __init__(self, engine):
        self.engine = engine
        self.width, self.dtype = engine.width, engine.dtype
        self.steps = []
        self.events = []
        self.step_fault = None
        self.revert_fault = None
        self.threads = set()
        self.gate = threading.Event()
        self.entered = threading.Event()

    def open(self, layers, max_positions, expected=0):
        self.threads.add(threading.current_thread())
        self.events.append("open")
        return self.engine.open(layers, max_positions, expected)

    def reserve(self, session, end):
        return self.engine.reserve(session, end)

    def step(self, batch):
        self.threads.add(threading.current_thread())
        self.steps.append([(work.session, work.start) for work in batch])
        self.entered.set()
        assert self.gate.wait(30)
        if self.step_fault is not None:
            raise self.step_fault
        for outcome in self.engine.step(batch):
            self.events.append("outcome")
            yield outcome

    @property
    def open_sessions(self):
        return self.engine.open_sessions

    @property
    def pool_use(self):
        return self.engine.pool_use

    def interrupt(self):
        self.events.append("interrupt")
        self.engine.interrupt()

    def revert(self, session):
        if self.revert_fault is not None:
            raise self.revert_fault
        self.engine.revert(session)

    def close(self, session):
        self.threads.add(threading.current_thread())
        self.events.append("close")
        self.engine.close(session)


def scheduled(model, scenario, *, hold=False, pacing=None, waiting=None, **settings):
    async def body():
        engine = Observed(model.engine(**settings))
        if not hold:
            engine.gate.set()
        scheduler = Scheduler(engine, pacing=pacing, waiting=waiting)
        scheduler.start()
        try:
            return await scenario(scheduler, engine)
        finally:
            engine.gate.set()
            await scheduler.stop(10)

    return run(body())


def as_array(reply, tokens):
    return codecs.decode(reply.encoded.payload, Codec.FP32, tokens, WIDTH)
