"""The start model of all rows: the embedded clean one, as a bundle of the study's resolution."""

from __future__ import annotations

import shutil
from pathlib import Path

from robustzs.bundle.manifest import BundleManifest
from robustzs.bundle.registry import resolve_model
from robustzs.bundle.store import Bundle
from robustzs.errors import BundleManifestError, UsageError
from robustzs_training.export.bundle import (
    BundleFacts,
    TextPrecisions,
    export_open_clip_model,
)
from robustzs_training.export.sources import SourceModel, SourceRequest, load_source
from robustzs_training.lite.quantize import quantize_text_encoder

MODEL = "robustzs-lite-clean"
SMALLEST = 32


def start_bundle(folder: Path, image_size: int, *, model: str = MODEL) -> Path:
    """A bundle of the model whose input has so many pixels a side; made once.

    The image tower pools over whatever it is given, so that its weights are the same at every
    size; what changes is the resize before it and the ONNX graph.

    Args:
        folder: Where to make it.
        image_size: Pixels a side.
        model: A bundle with weights.

    Returns:
        The bundle's folder: that of ``model`` itself where it has this size.

    Raises:
        UsageError: A size that is too small, or a model that is no bundle.
        RobustZSError: Whatever loading and exporting raise.
    """
    if image_size < SMALLEST:
        raise UsageError(f"{image_size} pixels a side", hint=f"at least {SMALLEST}")
    path = resolve_model(model)
    size = (image_size, image_size)
    manifest = Bundle.load(path, verify=False).manifest
    if manifest.preprocess.image_size == size:
        return path
    target = folder / f"{manifest.name}-{image_size}"
    if (target / "bundle.json").is_file():
        Bundle.load(target)
        return target
    shutil.rmtree(target, ignore_errors=True)
    source = load_source(SourceRequest(model=str(path)))
    if source.manifest is None:
        raise BundleManifestError(f"{model} has no record", hint="name a bundle with weights")
    return _export(source, source.manifest, size, target)


def _export(
    source: SourceModel, manifest: BundleManifest, size: tuple[int, int], target: Path
) -> Path:
    facts = BundleFacts(
        name=f"{manifest.name}-{size[0]}",
        description=f"{manifest.name} at {size[0]} x {size[1]} pixels, with the same weights.",
        source=manifest.source,
        preprocess=source.preprocess.model_copy(update={"image_size": size, "resize_size": None}),
        mean=source.mean,
        std=source.std,
        licences=manifest.licences,
        templates=manifest.templates,
        temperature=manifest.temperature,
        geometry=manifest.geometry,
        training=manifest.training,
    )
    precisions = None
    if "int8" in manifest.text_encoders:
        precisions = TextPrecisions(
            quantisers={"int8": quantize_text_encoder},
            default=manifest.default_text_precision,
            keep_fp32="fp32" in manifest.text_encoders,
        )
    made = export_open_clip_model(
        source.model,
        config=source.config,
        tokenizer=source.tokenizer,
        facts=facts,
        output=target,
        weights="trained",
        backbones=source.backbones,
        text_precisions=precisions,
    )
    return made.bundle.path
