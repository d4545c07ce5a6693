"""A picture bundle written by hand: graphs so small that a test can say what they compute.

Its encoders look each token up in a table, its decoder gives the first three channels as they are.
"""

import json
from dataclasses import dataclass, field

import numpy as np
import onnx
import onnx.parser
import tokenizers
from tokenizers import models, pre_tokenizers, processors

from edge_runtime.graphs import RuntimeSettings
from lambda_split.bundle import ModelSource, describe_files
from lambda_split.bundle_files import SCHEMA
from lambda_split.image_bundle import (
    Conditioning,
    ImageBundle,
    ImageGraph,
    ImageManifest,
    LatentGeometry,
    SchedulerFile,
    TextEncoder,
    Vae,
    load_image_bundle,
    write_image_manifest,
)

ONE_THREAD = RuntimeSettings(threads=1)
WORDS = ("<s>", "</s>", "<pad>", "<unk>", "a", "red", "cat", "dog")
START, END, PAD, UNKNOWN, A, RED, CAT, DOG = range(len(WORDS))
TOKENS, FIRST_WIDTH, SECOND_WIDTH, CHANNELS = 6, 4, 5, 4
SIDE = 16  # pixels, and latents as well: the decoder does not enlarge

_generator = np.random.default_rng(7)
TABLES = {
    "text_encoder": _generator.normal(size=(len(WORDS), FIRST_WIDTH)).astype(np.float32),
    "text_encoder_2": _generator.normal(size=(len(WORDS), SECOND_WIDTH)).astype(np.float32),
}
SCHEDULER = {
    "_class_name": "EulerDiscreteScheduler",
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "epsilon",
    "timestep_spacing": "leading",
    "steps_offset": 1,
}


@dataclass(frozen=True)
class Wanted:
    """What :func:`write_bundle` may be told to do otherwise."""

    tables: dict = field(default_factory=lambda: TABLES)
    vae: dict = field(default_factory=dict)
    conditioning: dict = field(default_factory=dict)
    pools: bool = True  # the last encoder
    decoder: str = "picture = Gather <axis = 1> (latents, colours)"


def tokenizer() -> tokenizers.Tokenizer:
    """Words to tokens, with a start and an end token, as CLIP's does."""
    vocabulary = {word: number for number, word in enumerate(WORDS)}
    made = tokenizers.Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", START), ("</s>", END)]
    )
    return made


def _save(text, values, path):
    model = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["": 21]> {text}')
    used = {name for node in model.graph.node for name in node.input}
    for name, value in values.items():
        if name in used:
            model.graph.initializer.append(onnx.numpy_helper.from_array(value, name))
    onnx.checker.check_model(model)
    path.parent.mkdir(exist_ok=True)
    onnx.save(model, path)


def _save_encoder(table, path, *, pools):
    width = table.shape[1]
    outputs, body = f"float[B,{TOKENS},{width}] hidden", "hidden = Gather(table, ids)"
    if pools:
        outputs += f", float[B,{width}] pooled"
        body += "\n pooled = ReduceMean <keepdims = 0> (hidden, middle)"
    values = {"table": table, "middle": np.array([1], np.int64)}
    _save(f"graph (int64[B,{TOKENS}] ids) => ({outputs}) {{ {body} }}", values, path)


def write_bundle(folder, wanted=None) -> ImageBundle:
    """Two encoders, the second of which pools, and a decoder."""
    wanted = Wanted() if wanted is None else wanted
    names = tuple(wanted.tables)
    graphs = {}
    for name, table in wanted.tables.items():
        pools = wanted.pools and name == names[-1]
        file = f"{name}/model.onnx"
        _save_encoder(table, folder / file, pools=pools)
        outputs = {"hidden": "hidden", **({"pooled": "pooled"} if pools else {})}
        graphs[name] = ImageGraph(
            file=file, weights="fp32", inputs={"token_ids": "ids"}, outputs=outputs
        )
    _save(
        f"graph (float[B,{CHANNELS},h,w] latents) => (float[B,3,H,W] picture) "
        f"{{ {wanted.decoder} }}",
        {"colours": np.arange(3), "zero": np.array(0, np.float32)},
        folder / "vae_decoder" / "model.onnx",
    )
    graphs["vae_decoder"] = ImageGraph(
        file="vae_decoder/model.onnx",
        weights="fp32",
        inputs={"latents": "latents"},
        outputs={"picture": "picture"},
    )
    (folder / "tokenizer.json").write_text(tokenizer().to_str())
    (folder / "scheduler_config.json").write_text(json.dumps(SCHEDULER))
    files = [*(graph.file for graph in graphs.values()), "tokenizer.json", "scheduler_config.json"]
    widths = [table.shape[1] for table in wanted.tables.values()]
    manifest = ImageManifest(
        schema=SCHEMA,
        kind="text-to-image",
        producer="tests",
        model=ModelSource(
            id="hand-made", family="stable-diffusion-xl", fingerprint="0123456789abcdef"
        ),
        split="whole",
        latents=LatentGeometry(channels=CHANNELS, scale_factor=1, height=SIDE, width=SIDE),
        encoders=tuple(
            TextEncoder(
                graph=name,
                tokenizer="tokenizer.json",
                max_tokens=TOKENS,
                pad_token="<pad>",
                pad_token_id=PAD,
                width=width,
            )
            for name, width in zip(names, widths, strict=True)
        ),
        conditioning=Conditioning(
            **{"width": sum(widths), "pooled_width": widths[-1], **wanted.conditioning}
        ),
        vae=Vae(**{"graph": "vae_decoder", "kind": "full", "scaling_factor": 0.5, **wanted.vae}),
        scheduler=SchedulerFile(name="EulerDiscreteScheduler", file="scheduler_config.json"),
        graphs=graphs,
        files=describe_files(folder, files),
    )
    write_image_manifest(folder, manifest)
    return load_image_bundle(folder)
