"""The tokenizer: byte-level BPE trained on the corpus, and the chat template.

Byte-level means that any text can be encoded; trained on this corpus means that nearly every
word of the world is one token, so that the small model spends no layers on spelling.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Final

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from .corpus import documents
from .messages import Document

BOS: Final = "<s>"
EOS: Final = "</s>"
END_OF_TURN: Final = "<|end|>"
PAD: Final = "<pad>"
ROLE_TOKENS: Final = {role: f"<|{role}|>" for role in ("system", "user", "assistant")}
#: Their order fixes their ids, from 0 on.
SPECIAL_TOKENS: Final = (PAD, BOS, EOS, END_OF_TURN, *ROLE_TOKENS.values())
VOCABULARY: Final = 1792
#: Documents that the tokenizer is trained on; more of them change no merge that matters.
_TRAINING_DOCUMENTS: Final = 12_000

#: No whitespace between the parts, and nothing that depends on the number of messages: the
#: rendering of a longer chat starts with the rendering of a shorter one, so that a second turn
#: only appends tokens.
CHAT_TEMPLATE: Final = (
    "{{- bos_token -}}"
    "{%- for message in messages -%}"
    "{%- if message['role'] not in ['system', 'user', 'assistant'] -%}"
    "{{- raise_exception('Unknown role: ' + message['role']) -}}"
    "{%- endif -%}"
    "{{- '<|' + message['role'] + '|>' + (message['content'] | trim) + '<|end|>' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}"
)


def render(document: Document) -> str:
    """The text of a document as the model sees it, markup included.

    A chat ends with the end-of-turn token of its last message, as it does in use; plain text
    ends with the end-of-text token.
    """
    if document.text:
        return f"{BOS}{document.text}{EOS}"
    turns = (f"{ROLE_TOKENS[m.role]}{m.content}{END_OF_TURN}" for m in document.messages)
    return BOS + "".join(turns)


def train_tokenizer() -> Tokenizer:
    """Train the tokenizer; the same corpus gives the same tokenizer."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_training_texts(), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A",
        pair=f"{BOS} $A {BOS} $B",
        special_tokens=[(BOS, SPECIAL_TOKENS.index(BOS))],
    )
    return tokenizer


def save_tokenizer(tokenizer: Tokenizer, folder: Path, *, max_length: int) -> None:
    """Write the files that ``AutoTokenizer`` reads."""
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BOS,
        "eos_token": EOS,
        "pad_token": PAD,
        "model_max_length": max_length,
        "clean_up_tokenization_spaces": False,
        "padding_side": "left",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE)


def _training_texts() -> Iterator[str]:
    """Message texts without markup, so that merges never cross a special token."""
    for document in islice(documents("train", seed=1_000_000), _TRAINING_DOCUMENTS):
        yield from ([document.text] if document.text else [m.content for m in document.messages])
