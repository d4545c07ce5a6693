"""The steps of a pipeline's export, in order; one part of the model is in memory at a time."""

from __future__ import annotations

from pathlib import Path

from export.images.blocks import check_deep, export_blocks
from export.images.decoder import DECODER, export_decoder
from export.images.denoiser_runs import RunRecorder
from export.images.encoders import ExportedEncoder, export_encoder, sample_prompts
from export.images.latents import SCHEDULER_CONFIG
from export.images.settings import ImageExportSettings
from export.images.workplace import Workplace, as_json
from export.progress import Progress
from export.staging import staged_folder, writing
from lambda_split import __version__
from lambda_split.bundle import ModelSource
from lambda_split.bundle_files import SCHEMA, describe_files
from lambda_split.errors import CheckpointInvalid
from lambda_split.image_bundle import (
    Conditioning,
    ImageManifest,
    ImageVerification,
    LatentGeometry,
    SchedulerFile,
    load_image_bundle,
    write_image_manifest,
)
from lambda_split.partition.files import read_json_object
from lambda_split.partition.pipelines import MODEL_INDEX, Pipeline, open_pipeline

__all__ = ["export_pipeline"]

_MAX_JSON_BYTES = 1024 * 1024


def export_pipeline(
    model: str, out: str, settings: ImageExportSettings, *, progress: Progress
) -> ImageManifest:
    """Write a bundle; arguments and errors as :func:`export.export_image_bundle`."""
    pipeline = open_pipeline(model, revision=settings.revision, lora=settings.lora)
    if settings.split == "deep":
        check_deep(pipeline)
    # absolute(): the name of "." or "bundle/.." is empty or wrong without it
    target = Path(out).expanduser().absolute()
    try:
        with staged_folder(target, overwrite=settings.overwrite) as folder:
            return _write_bundle(Workplace(pipeline, settings, folder, target, progress))
    finally:
        progress.close()


def _write_bundle(work: Workplace) -> ImageManifest:
    pipeline = work.pipeline
    encoders = [export_encoder(work, name) for name in pipeline.text_encoders]
    conditioning = _conditioning(pipeline, encoders)
    recorder = RunRecorder() if work.settings.split == "deep" else None
    decoder = export_decoder(work, encoders, watcher=recorder)
    blocks = None if recorder is None else export_blocks(work, encoders, recorder.runs)
    graphs = {encoder.entry.graph: encoder.graph for encoder in encoders}
    graphs[DECODER] = decoder.graph
    if blocks is not None:
        graphs |= blocks.graphs
    _write_configs(work)
    facts = pipeline.facts
    verification = ImageVerification(
        prompts=len(sample_prompts()),
        pictures=decoder.pictures,
        encoders={encoder.entry.graph: encoder.verification for encoder in encoders},
        vae=decoder.verification,
        blocks=None if blocks is None else blocks.verification,
    )
    with writing(work.out):
        files = describe_files(work.folder, _written(work.folder))
        manifest = ImageManifest(
            schema=SCHEMA,
            kind="text-to-image",
            producer=f"lambda-split {__version__}",
            model=_source(pipeline),
            split=work.settings.split,
            latents=LatentGeometry(
                channels=facts.latent_channels,
                scale_factor=decoder.scale_factor,
                height=facts.height * decoder.scale_factor,
                width=facts.width * decoder.scale_factor,
            ),
            encoders=tuple(encoder.entry for encoder in encoders),
            conditioning=conditioning,
            vae=decoder.vae,
            blocks=None if blocks is None else blocks.entry,
            scheduler=SchedulerFile(name=pipeline.index.scheduler, file=SCHEDULER_CONFIG),
            graphs=graphs,
            verification=verification,
            files=files,
        )
        write_image_manifest(work.folder, manifest)
    # Read as a device does, so that nothing appears which it would refuse; the digests were
    # computed from these files just now.
    return load_image_bundle(work.folder, check_contents=False).manifest


def _written(folder: Path) -> list[str]:
    return sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()
    )


def _conditioning(pipeline: Pipeline, encoders: list[ExportedEncoder]) -> Conditioning:
    facts = pipeline.facts
    width = sum(encoder.entry.width for encoder in encoders)
    if width != facts.conditioning_width:
        reason = f"cross_attention_dim is {facts.conditioning_width}, the encoders give {width}"
        raise CheckpointInvalid(pipeline.unet.file("config.json"), reason)
    return Conditioning(
        width=width,
        pooled_width=facts.pooled_width,
        time_ids=facts.time_ids,
        force_zeros_for_empty_prompt=pipeline.index.force_zeros_for_empty_prompt,
        guidance_embedding=facts.guidance_embedding,
    )


def _write_configs(work: Workplace) -> None:
    # As other runtimes look for them; what they say about the model's parts stays as it was.
    files = work.pipeline.files
    index = read_json_object(files.get(MODEL_INDEX), max_bytes=_MAX_JSON_BYTES)
    work.write_files("", {MODEL_INDEX: as_json(index)})
    scheduler = read_json_object(files.get(SCHEDULER_CONFIG), max_bytes=_MAX_JSON_BYTES)
    folder, _, name = SCHEDULER_CONFIG.partition("/")
    work.write_files(folder, {name: as_json(scheduler)})


def _source(pipeline: Pipeline) -> ModelSource:
    return ModelSource(
        id=pipeline.id,
        revision=pipeline.revision,
        family=pipeline.family,
        lora=pipeline.lora,
        fingerprint=pipeline.fingerprint,
        witnesses=pipeline.witnesses(),
    )
