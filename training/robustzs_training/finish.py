"""What a run leaves: a bundle in the output folder itself, beside the run's own files.

::

    DIR/bundle.json, image_encoder.onnx, ..., README.md    the bundle
    DIR/summary.json                                       what was measured
    DIR/run/                                               checkpoints, logs, the resolved recipe

The bundle is written and proven in a folder of its own, then moved file by file, ``bundle.json``
last: a folder with a ``bundle.json`` is whole, whatever interrupted its making.
"""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from robustzs.bundle.manifest import (
    MANIFEST_NAME,
    BundleManifest,
    Geometry,
    LicenceRecord,
    SourceRecord,
)
from robustzs.bundle.store import Bundle, read_json_object
from robustzs.errors import BundleWriteError, DataError, ExportError, ImageError, RobustZSError
from robustzs.threat import format_size
from robustzs_training.data.base import SampleSource
from robustzs_training.export.bundle import (
    BundleFacts,
    ImagePrecisions,
    TextPrecisions,
    export_open_clip_model,
)
from robustzs_training.export.command import licences_of
from robustzs_training.export.sources import SourceModel
from robustzs_training.objectives import Hierarchical, Objective, QtAftHierarchical
from robustzs_training.recipe import Recipe

RUN_FOLDER = "run"
SUMMARY = "summary.json"
_MAX_MANIFEST = 1_000_000


def write_bundle(
    recipe: Recipe,
    source: SourceModel,
    objective: Objective,
    output: Path,
    *,
    steps: int,
    training: Mapping[str, Any],
    data: SampleSource | None = None,
    say: Callable[[str], None] | None = None,
) -> Bundle:
    """Export what was trained into ``output``, which may hold the run's other files.

    Args:
        recipe: Of the run.
        source: What was trained; its ``model`` holds the trained weights. It is left on the CPU,
            in evaluation mode.
        objective: Says how features are compared.
        output: The folder.
        steps: That the weights have seen.
        training: For the record; JSON.
        data: What the run trained on: int8 activations are calibrated on some of it, where the
            source's bundle has an int8 image encoder.
        say: Told where no such encoder could be made again; the bundle then has float32 alone.

    Raises:
        BundleWriteError: The disk refuses.
        ExportError: The model cannot be exported.
    """
    model = source.model.cpu()
    geometry, scale = geometry_of(objective), _trained_scale(objective)
    if scale is not None:
        _set_scale(model, scale)
    facts = _facts(recipe, source, geometry, steps, training)
    aside = output / RUN_FOLDER / "bundle"
    shutil.rmtree(aside, ignore_errors=True)
    is_portable = not Path(str(source.config["text_cfg"].get("hf_model_name", ""))).is_absolute()

    def export(image_precisions: ImagePrecisions | None) -> None:
        export_open_clip_model(
            model,
            config=source.config,
            tokenizer=source.tokenizer,
            facts=facts,
            output=aside,
            weights="trained" if is_portable else "none",
            backbones=source.backbones,
            image_precisions=image_precisions,
            text_precisions=_text_precisions(source.manifest),
        )

    _with_int8(export, source, data, say)
    return put_in_place(aside, output)


def put_in_place(folder: Path, output: Path) -> Bundle:
    """Move a proven bundle into ``output`` and load it from there.

    An older bundle's files go first, its ``bundle.json`` before all others.

    Raises:
        BundleWriteError: The disk refuses. ``output`` then holds no ``bundle.json``.
    """
    try:
        _remove_bundle(output)
        for path in sorted(folder.rglob("*")):
            name = path.relative_to(folder)
            if path.is_file() and name.as_posix() != MANIFEST_NAME:
                target = output / name
                target.parent.mkdir(parents=True, exist_ok=True)
                os.replace(path, target)
        os.replace(folder / MANIFEST_NAME, output / MANIFEST_NAME)
        shutil.rmtree(folder)
    except OSError as error:
        raise BundleWriteError(
            f"the bundle could not be moved into {output}: {error.strerror or error}",
            hint="the checkpoints are safe: see to the disk, then start the same command again",
        ) from error
    return Bundle.load(output)


def _remove_bundle(output: Path) -> None:
    manifest = output / MANIFEST_NAME
    if not manifest.is_file():
        return
    try:
        document = read_json_object(manifest, MANIFEST_NAME, _MAX_MANIFEST)
        names = [*BundleManifest.model_validate(document).files]
    except (RobustZSError, ValueError):  # not one that we can read: only its record goes
        names = []
    manifest.unlink()
    for name in names:
        (output / name).unlink(missing_ok=True)


def geometry_of(objective: Objective) -> Geometry | None:
    """How the trained model compares features; ``None`` where the objective leaves that alone."""
    tree = objective.tree if isinstance(objective, QtAftHierarchical) else objective
    if not isinstance(tree, Hierarchical):
        return None
    found = tree.geometry()
    return Geometry.model_validate({k: v for k, v in found.items() if k != "logit_scale"})


def _trained_scale(objective: Objective) -> float | None:
    """The factor on distances, where one was trained."""
    tree = objective.tree if isinstance(objective, QtAftHierarchical) else objective
    return float(tree.geometry()["logit_scale"]) if isinstance(tree, Hierarchical) else None


def templates_of(recipe: Recipe, source: SourceModel) -> str | tuple[str, ...]:
    """Default templates of the bundle: the recipe's, else the source's."""
    inherited = source.manifest.templates if source.manifest is not None else "single"
    return recipe.export.templates or inherited


@torch.no_grad()
def _set_scale(model: torch.nn.Module, scale: float) -> None:
    model.get_parameter("logit_scale").fill_(math.log(scale))


def _with_int8(
    export: Callable[[ImagePrecisions | None], None],
    source: SourceModel,
    data: SampleSource | None,
    say: Callable[[str], None] | None,
) -> None:
    """Export with an int8 image encoder where the source has one and it comes out well."""
    try:
        export(_image_precisions(source, data))
    except (ExportError, DataError, ImageError) as error:
        if not _had_int8(source):
            raise
        # Hours of training are not lost because of a precision.
        if say is not None:
            say(f"the bundle has no int8 image encoder: {error}")
        export(None)


def _had_int8(source: SourceModel) -> bool:
    return source.manifest is not None and "int8" in source.manifest.image_encoders


def _image_precisions(source: SourceModel, data: SampleSource | None) -> ImagePrecisions | None:
    """The source bundle's, made again for the trained weights on pictures that they have seen."""
    if source.manifest is None or not _had_int8(source) or data is None:
        return None
    from robustzs_training.export.calibration_pictures import calibration_pictures_of
    from robustzs_training.export.quantize_image import int8_image_precisions

    pixels = calibration_pictures_of(data, source.preprocess)
    return int8_image_precisions(pixels, default=source.manifest.default_image_precision)


def _text_precisions(manifest: BundleManifest | None) -> TextPrecisions | None:
    """The source bundle's: a small one stays small."""
    if manifest is None or "int8" not in manifest.text_encoders:
        return None
    from robustzs_training.lite.quantize import quantize_text_encoder

    return TextPrecisions(
        quantisers={"int8": quantize_text_encoder},
        default=manifest.default_text_precision,
        keep_fp32="fp32" in manifest.text_encoders,
    )


def _facts(
    recipe: Recipe,
    source: SourceModel,
    geometry: Geometry | None,
    steps: int,
    training: Mapping[str, Any],
) -> BundleFacts:
    manifest = source.manifest
    threat = recipe.threat
    origin = manifest.name if manifest is not None else source.source.description
    return BundleFacts(
        name=recipe.name,
        description=f"{origin}, hardened by the recipe {recipe.name} ({recipe.objective_name}, "
        f"{threat.norm} eps {format_size(threat.eps)}, {steps} steps).",
        source=SourceRecord(
            description=f"{source.source.description}; then {steps} steps of the robustzs recipe "
            f"{recipe.name}",
            architecture=source.source.architecture,
            pretrained=source.source.pretrained,
            sha256=source.source.sha256,
        ),
        preprocess=source.preprocess,
        mean=source.mean,
        std=source.std,
        licences=(*licences_of(recipe.export.licence, manifest), *_licences_of_data(recipe)),
        templates=templates_of(recipe, source),
        # Distances have a scale of their own, which was trained.
        temperature=manifest.temperature if manifest is not None and geometry is None else 1.0,
        geometry=geometry or (Geometry() if manifest is None else manifest.geometry),
        training=training,
    )


def _licences_of_data(recipe: Recipe) -> tuple[LicenceRecord, ...]:
    """Of pictures that this package brings; a user's own are the user's to know."""
    if recipe.data.source != "openmoji":
        return ()
    covers = "OpenMoji's drawings, which the image tower was trained on"
    return (LicenceRecord(name="CC-BY-SA-4.0", covers=covers, url="https://openmoji.org"),)


def calibration_note(source: SourceModel, objective: Objective) -> str:
    """What of the source's calibration still stands, for the record."""
    manifest = source.manifest
    poincare = geometry_of(objective) is not None
    kept = "the temperature is 1"
    if manifest is not None and not poincare:
        kept = f"the temperature {manifest.temperature:g} is that of {manifest.name}"
    dropped = [
        name.replace("_", " ")
        for name in ("theta", "low_confidence", "rejection")
        if manifest is not None and getattr(manifest, name) is not None
    ]
    without = f"; its {', '.join(dropped)} no longer hold and were left out" if dropped else ""
    return f"Not calibrated: {kept} and was not fitted to these weights{without}."
