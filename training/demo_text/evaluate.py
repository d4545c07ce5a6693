"""Measure the shipped model and write its model card.

Measures what is shipped: the float16 weights in --model, computed with in float32. Adds the
figures to training_log.json and writes README.md, loss_curve.png, heldout.jsonl and
prompts.json beside the model.

  python -m training.demo_text.evaluate --model lambda_split/demo_models/text
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any, Final

import torch
from tokenizers import Tokenizer

from .card import draw_loss_curve, model_card
from .chat import Storyteller
from .heldout import held_out_file, read_held_out
from .perplexity import held_out_documents, perplexity
from .prompts import SAMPLES, test_prompts
from .scoring import Score, knowledge, memory, obedience
from .shipping import to_json, write_text
from .tokenizer import render

#: The opening that plain completion is shown with.
_PLAIN_OPENING: Final = "Once upon a time"


def measure(folder: Path, documents: int, questions: int) -> dict[str, Any]:
    """Measure a shipped model.

    Args:
        folder: The model.
        documents: Held-out documents of each split.
        questions: Stories to ask for, and stories to ask about.

    Returns:
        The figures, ready for the training log.
    """
    teller = Storyteller.load(folder)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    seen, unseen = (
        perplexity(teller.model, held_out_documents(tokenizer, split, documents))
        for split in ("seen", "unseen")
    )
    shipped = [
        tokenizer.encode(render(document), add_special_tokens=False).ids
        for document in read_held_out(folder / "heldout.jsonl")
    ]
    in_file = perplexity(teller.model, shipped)
    remembered = memory(teller, questions)
    weights = [parameter.detach() for parameter in teller.model.parameters() if parameter.ndim == 2]
    return {
        "dtype": "float16 weights, float32 arithmetic",
        "parameters": teller.model.num_parameters(),
        "bytes": sum(path.stat().st_size for path in folder.iterdir() if path.is_file()),
        "held_out_perplexity": {
            "seen_combinations": round(seen.value, 4),
            "seen_combinations_tokens": seen.tokens,
            "unseen_combinations": round(unseen.value, 4),
            "unseen_combinations_tokens": unseen.tokens,
            "heldout_jsonl": round(in_file.value, 4),
            "heldout_jsonl_tokens": in_file.tokens,
        },
        "largest_weight": round(max(float(weight.abs().max()) for weight in weights), 4),
        "story_has_what_was_asked": _as_json(obedience(teller, questions)),
        "follow_ups_on_who_what_where_right": _as_json(remembered.facts),
        "follow_ups_on_moods_and_times_right": _as_json(remembered.moods_and_times),
        "facts_right": _as_json(knowledge(teller)),
        "samples": [
            [message.as_dict() for message in teller.talk(list(users))] for users in SAMPLES
        ],
        "plain_sample": "".join(teller.complete(_PLAIN_OPENING)),
    }


def _as_json(score: Score) -> dict[str, int]:
    return {"right": score.right, "asked": score.asked}


def main() -> None:
    """Measure, then write the log, the card, the curve and the data files."""
    parser = argparse.ArgumentParser(
        prog="python -m training.demo_text.evaluate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--model", type=Path, required=True, help="folder of the shipped model")
    parser.add_argument("--documents", type=int, default=300,
                        help="held-out documents of each split (default 300)")  # fmt: skip
    parser.add_argument("--questions", type=int, default=60,
                        help="stories to ask for and to ask about (default 60)")  # fmt: skip
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (default 2)")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    folder: Path = arguments.model
    write_text(folder / "heldout.jsonl", held_out_file())
    write_text(folder / "prompts.json", to_json(test_prompts()))
    log: dict[str, Any] = json.loads((folder / "training_log.json").read_text())
    log["evaluation"] = measure(folder, arguments.documents, arguments.questions)
    draw_loss_curve(log, folder / "loss_curve.png")
    write_text(folder / "training_log.json", to_json(log))
    write_text(folder / "README.md", model_card(log))
    shown = {k: v for k, v in log["evaluation"].items() if k not in ("samples", "plain_sample")}
    print(json.dumps(shown, indent=2))


if __name__ == "__main__":
    main()
