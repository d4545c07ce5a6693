"""Bundles of hand-made graphs that have a text side: a tokenizer of one word a token."""

import json

import msgspec

from lambda_split.bundle import TextSettings, describe_files, load_bundle, write_manifest
from tests.edge_runtime.some_graphs import VOCAB, write_bundle

WORDS = {f"w{number}": number for number in range(VOCAB)}
TOKENIZER = {
    "version": "1.0",
    "added_tokens": [],
    "pre_tokenizer": {"type": "WhitespaceSplit"},
    "model": {"type": "WordLevel", "vocab": WORDS, "unk_token": "w0"},
}


def write_text_bundle(folder, kind="shared-kv", *, tokenizer=TOKENIZER, template=None, **text):
    """A bundle with a tokenizer of one word a token."""
    manifest = write_bundle(folder, kind).manifest
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    names = list(manifest.files)
    if template is not None:
        (folder / "template.jinja").write_bytes(template)
        names.append("template.jinja")
        text["chat_template"] = "template.jinja"
    settings = TextSettings(tokenizer="tokenizer.json", **text)
    files = describe_files(folder, names)
    write_manifest(folder, msgspec.structs.replace(manifest, text=settings, files=files))
    return load_bundle(folder)
