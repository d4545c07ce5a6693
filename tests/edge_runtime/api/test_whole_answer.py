"""An answer that takes long to spell out holds up nobody else."""

from __future__ import annotations

import asyncio
import threading
from types import SimpleNamespace

from edge_runtime.api.completions import CompletionAnswer
from edge_runtime.api.generating import Delta, TextPlan
from edge_runtime.sampling import SamplingSettings
from edge_runtime.stats import GenerationStats


class SlowAnswer(CompletionAnswer):
    """Waits, while it is put together, for what only the event loop can do."""

    def __init__(self, *arguments: object, **settings: object) -> None:
        super().__init__(*arguments, **settings)
        self.begun, self.others_went_on = threading.Event(), threading.Event()

    def whole(self, choices, usage):
        self.begun.set()
        assert self.others_went_on.wait(30)
        return super().whole(choices, usage)


async def one_text(_job, _token_ids):
    """What a pool runs: a text of two pieces."""
    yield Delta(0, "a")
    yield Delta(0, "b", (), "length", GenerationStats(prompt_tokens=1, completion_tokens=2))


async def no_news() -> None:
    """A client that stays."""
    await asyncio.Event().wait()


def test_others_go_on_while_an_answer_is_put_together() -> None:
    served = SimpleNamespace(id="demo", fingerprint="fp", pool=SimpleNamespace(run=one_text))
    plan = TextPlan(((1,),), 1, 2, SamplingSettings(), (), None)

    async def scenario():
        answer = SlowAnswer(served, plan, streams=False, with_usage=False)
        answering = asyncio.create_task(answer.respond(SimpleNamespace(receive=no_news)))
        assert await asyncio.to_thread(answer.begun.wait, 30)
        answer.others_went_on.set()
        response = await answering
        assert response.status_code == 200
        assert b'"text":"ab"' in response.body

    asyncio.run(scenario())
