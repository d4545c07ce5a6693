"""Writing the files that are shipped: weights in float16, configs, tokenizer.

Every file is written beside its place and then renamed into it, so that a reader never sees
half a file.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from transformers import LlamaForCausalLM

from .recipe import BOS_ID, END_OF_TURN_ID, EOS_ID, MAX_POSITIONS, PAD_ID, model_config
from .tokenizer import save_tokenizer


def round_to_half(model: LlamaForCausalLM) -> LlamaForCausalLM:
    """Round a model's weights to float16 in place and keep computing in float32.

    What is evaluated must be what is shipped, to the bit.
    """
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.to(torch.float16).to(torch.float32))
    return model


def ship_model(model: LlamaForCausalLM, tokenizer: Tokenizer, folder: Path) -> None:
    """Write everything that ``from_pretrained`` needs."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".shipping-") as name:
        staging = Path(name)
        weights = {
            key: value.detach().to(torch.float16).contiguous()
            for key, value in model.state_dict().items()
            if key != "lm_head.weight"  # Tied to the embedding: stored once.
        }
        save_file(weights, str(staging / "model.safetensors"), metadata={"format": "pt"})
        config = model_config().to_dict() | {
            "architectures": ["LlamaForCausalLM"],
            "dtype": "float16",
        }
        (staging / "config.json").write_text(to_json(config))
        generation = {
            "bos_token_id": BOS_ID,
            "eos_token_id": [EOS_ID, END_OF_TURN_ID],
            "pad_token_id": PAD_ID,
            "max_new_tokens": 256,
        }
        (staging / "generation_config.json").write_text(to_json(generation))
        save_tokenizer(tokenizer, staging, max_length=MAX_POSITIONS)
        for path in sorted(staging.iterdir()):
            path.chmod(0o644)  # safetensors writes private files.
            path.replace(folder / path.name)


def write_text(path: Path, text: str) -> None:
    """Write a text file through a temporary one."""
    with tempfile.NamedTemporaryFile(
        "w", dir=path.parent, prefix=".", delete=False, encoding="utf-8"
    ) as file:
        file.write(text)
    # Temporary files are private by default; a shipped file is for everybody.
    written = Path(file.name)
    written.chmod(0o644)
    written.replace(path)


def to_json(value: object) -> str:
    """JSON as it is shipped: indented, keys in their own order, a newline at the end."""
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"
