"""An audit of a language model: captures, attacks and costs, setting by setting."""

from __future__ import annotations

import pathlib
import time
from collections.abc import Callable
from dataclasses import replace

from audit.capture import Setting, Victim
from audit.costs import perplexity
from audit.device_ends import DeviceGraphs
from audit.results import SCHEMA, Cost, Finding, TextAudit
from audit.sampled_texts import sampled_texts
from audit.text_jobs import Job, Subject, jobs
from audit.text_plan import TextPlan
from audit.texts import open_reader, read_texts, text_rows
from audit.whole_model import load_whole
from lambda_split import __version__
from lambda_split.counting import counted
from lambda_split.errors import UsageError
from lambda_split.partition import Checkpoint

__all__ = ["Progress", "audit_text"]

_SHORTEST_PROMPT = 4  # the start token is known: less would say nothing

Progress = Callable[[str, float], None]
"""Is told what happens next, and the share of all work that is done before it."""


def audit_text(
    checkpoint: Checkpoint,
    path: pathlib.Path,
    plan: TextPlan,
    *,
    device: DeviceGraphs | None = None,
    progress: Progress,
) -> TextAudit:
    """Attack what a device would send, and measure what each setting costs.

    Args:
        checkpoint: The public model.
        path: The file with the texts; see :mod:`audit.texts`.
        plan: What to try.
        device: The graphs that the device runs at each of the plan's splits; the model's own
            modules by default.
        progress: Is told how far it is.

    Returns:
        What was found; after Ctrl-C what was found until then, if anything was.

    Raises:
        CheckpointError: the model cannot be read.
        UsageError: the file cannot be read or holds too little text.
        SplitImpossible: the model has fewer layers.
    """
    began = time.perf_counter()
    for number, split in enumerate(plan.splits):
        split.check(checkpoint.layer_count)
        if split in plan.splits[:number]:
            raise UsageError(f"the split {split} is given twice")
    progress("reading the model and the texts", 0.0)
    subject = _prepare(checkpoint, path, plan, device or DeviceGraphs())
    findings: list[Finding] = []
    costs: list[Cost] = []
    todo = list(jobs(subject))
    total = sum(job.weight for job in todo)
    done = 0.0
    left_out: list[str] = []
    for number, job in enumerate(todo):
        try:
            progress(job.name, done / total)
            found, cost = job.run(_ticker(progress, job, done, total))
        except KeyboardInterrupt:
            if not findings:
                raise
            left_out = [one.name for one in todo[number:]]
            break
        # Of replies that are nothing but special tokens there is nothing to find.
        findings += [one for one in found if one.tokens]
        costs += cost
        done += job.weight
    progress("done", 1.0)
    return TextAudit(
        schema=SCHEMA,
        producer=f"lambda-split {__version__}",
        model=checkpoint.id,
        fingerprint=checkpoint.fingerprint,
        layer_count=checkpoint.layer_count,
        hidden_size=checkpoint.hidden_size,
        text=path.name,
        findings=tuple(findings),
        costs=tuple(costs),
        seconds=time.perf_counter() - began,
        left_out=tuple(left_out),
    )


def _ticker(progress: Progress, job: Job, done: float, total: float) -> Callable[[float], None]:
    return lambda share: progress(job.name, (done + share * job.weight) / total)


def _prepare(
    checkpoint: Checkpoint, path: pathlib.Path, plan: TextPlan, device: DeviceGraphs
) -> Subject:
    public = load_whole(checkpoint)
    reader = open_reader(checkpoint)
    room = public.max_positions - plan.reply_tokens
    if min(room, plan.prompt_tokens) < _SHORTEST_PROMPT:
        raise UsageError(
            f"prompts of {plan.prompt_tokens} and replies of "
            f"{counted(plan.reply_tokens, 'token')}: a prompt has at least "
            f"{_SHORTEST_PROMPT}, and the model {public.max_positions} in all"
        )
    texts = read_texts(
        path,
        reader,
        prompts=plan.prompts,
        prompt_tokens=min(plan.prompt_tokens, room),
        measured=plan.measured,
    )
    missing = plan.training_positions - sum(map(len, texts.other))
    if missing > 0:
        # The model's own text stands for what an attacker knows beside the file.
        more = sampled_texts(public, reader.start, reader.stop_ids, missing, seed=0)
        texts = replace(texts, other=(*texts.other, *text_rows(more)))
    plain = Victim(public, Setting(plan.splits[0], plan.codec), 1.0)
    return Subject(public, reader, texts, plan, perplexity(plain, texts.measured), device)
