"""What `robustzs export` does, once its options are read."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from robustzs.bundle.manifest import BundleManifest, LicenceRecord
from robustzs.errors import UsageError
from robustzs.labels.templates import get_templates
from robustzs.settings import models_dir
from robustzs_training.data.scan import check_folder
from robustzs_training.export.bundle import (
    BundleFacts,
    ExportResult,
    ImagePrecisions,
    export_open_clip_model,
)
from robustzs_training.export.calibration_pictures import read_calibration_folder
from robustzs_training.export.onnx_export import DEFAULT_OPSET, OnnxOptions
from robustzs_training.export.quantize_image import int8_image_precisions
from robustzs_training.export.reverse import write_hugging_face, write_open_clip
from robustzs_training.export.sources import SourceModel, SourceRequest, load_source

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
Target = Literal["bundle", "open-clip", "huggingface"]
ImagePrecision = Literal["fp32", "int8"]
_INHERITED = ("description", "temperature", "geometry", "theta", "low_confidence", "rejection")


@dataclass(frozen=True, kw_only=True)
class ExportArguments:
    """Options of the command.

    Attributes:
        request: What to load.
        target: What to write.
        output: Folder; None: the user's folder of models, by name (bundles only).
        name: Of the bundle; None: made from the source's.
        templates: Default templates; None: those of the bundle that is exported again, or
            ``single``.
        opset: ONNX operator set.
        weights: Whether the bundle carries weights for torch.
        licence: Of the weights; SPDX identifier where there is one.
        force: Replace an existing output.
        image_precision: ``int8``: an image encoder of int8 beside the float32 one.
        calibrate_on: Folder of pictures that int8 activations are calibrated on.
        default_image_precision: What the bundle uses unless another is asked for.
    """

    request: SourceRequest
    target: Target = "bundle"
    output: Path | None = None
    name: str | None = None
    templates: str | None = None
    opset: int = DEFAULT_OPSET
    weights: bool = False
    licence: str | None = None
    force: bool = False
    image_precision: ImagePrecision = "fp32"
    calibrate_on: Path | None = None
    default_image_precision: ImagePrecision = "fp32"


@dataclass(frozen=True, kw_only=True)
class ExportOutcome:
    """What was written, and what to tell the user.

    Attributes:
        path: The folder.
        notes: For people.
    """

    path: Path
    notes: tuple[str, ...]


def run_export(arguments: ExportArguments) -> ExportOutcome:
    """Load, prove and write.

    Raises:
        RobustZSError: whatever `load_source` and the writers raise.
    """
    if arguments.target != "bundle" and arguments.output is None:
        raise UsageError(f"--to {arguments.target} needs a folder", hint="give --output DIR")
    if arguments.templates is not None:
        get_templates(arguments.templates)
    if arguments.name is not None and not _NAME.fullmatch(arguments.name):
        raise UsageError(
            f"--name {arguments.name!r} cannot be a bundle's name",
            hint="at most 64 lower-case letters, digits and . _ -, a letter or digit first",
        )
    _check_precision(arguments)
    source = load_source(arguments.request)
    if arguments.target == "bundle":
        name = arguments.name or _default_name(arguments.request)
        output = arguments.output or models_dir() / name
        result = _write_bundle(source, name, output, arguments)
        notes = [*source.notes, _proof(result)]
        return ExportOutcome(path=result.bundle.path, notes=tuple(notes))
    output = arguments.output or Path()
    write = write_open_clip if arguments.target == "open-clip" else write_hugging_face
    notes = [*source.notes, *write(source, output, force=arguments.force)]
    return ExportOutcome(path=output, notes=tuple(notes))


def _check_precision(arguments: ExportArguments) -> None:
    if arguments.image_precision == "fp32":
        if arguments.calibrate_on is not None:
            raise UsageError(
                "--calibrate-on goes with --image-precision int8; float32 needs no calibration",
                hint="give both, or none",
            )
        if arguments.default_image_precision != "fp32":
            raise UsageError(
                f"the bundle would have no image encoder of "
                f"{arguments.default_image_precision} to use by default",
                hint="add --image-precision int8 --calibrate-on FOLDER",
            )
        return
    if arguments.target != "bundle":
        raise UsageError(
            f"--image-precision int8 does not go with --to {arguments.target}",
            hint="precisions are files of a bundle; other libraries get the float32 weights",
        )
    if arguments.calibrate_on is None:
        raise UsageError(
            "--image-precision int8 needs pictures to calibrate on",
            hint="--calibrate-on FOLDER, of the kind that will be classified, none of them held "
            "out for measurements",
        )
    check_folder(arguments.calibrate_on)


def _image_precisions(source: SourceModel, arguments: ExportArguments) -> ImagePrecisions | None:
    if arguments.image_precision == "fp32" or arguments.calibrate_on is None:
        return None
    pixels = read_calibration_folder(arguments.calibrate_on, source.preprocess)
    return int8_image_precisions(pixels, default=arguments.default_image_precision)


def _write_bundle(
    source: SourceModel, name: str, output: Path, arguments: ExportArguments
) -> ExportResult:
    manifest = source.manifest
    inherited: dict[str, Any] = {}
    if manifest is not None:
        inherited = {key: getattr(manifest, key) for key in _INHERITED}
        inherited["training"] = manifest.training
    facts = BundleFacts(
        name=name,
        source=source.source,
        preprocess=source.preprocess,
        mean=source.mean,
        std=source.std,
        licences=licences_of(arguments.licence, manifest),
        templates=arguments.templates or (manifest.templates if manifest else "single"),
        **inherited,
    )
    return export_open_clip_model(
        source.model,
        config=source.config,
        tokenizer=source.tokenizer,
        facts=facts,
        output=output,
        options=OnnxOptions(opset=arguments.opset),
        weights="trained" if arguments.weights else "none",
        backbones=source.backbones,
        image_precisions=_image_precisions(source, arguments),
        force=arguments.force,
    )


def licences_of(licence: str | None, manifest: BundleManifest | None) -> tuple[LicenceRecord, ...]:
    """The licence that was named, else those of the source bundle, else that none is stated."""
    if licence is not None:
        return (LicenceRecord(name=licence, covers="the weights, as whoever exported them says"),)
    if manifest is not None:
        return manifest.licences
    covers = "the weights: not stated; ask whoever published the checkpoint"
    return (LicenceRecord(name="NOASSERTION", covers=covers),)


def _default_name(request: SourceRequest) -> str:
    parts = [request.model, request.pretrained or ""]
    stems = [Path(part.split(":")[-1]).name for part in parts if part]
    words = [re.sub(r"\.(safetensors|json|pt|pth|bin|tar)$", "", stem) for stem in stems]
    name = re.sub(r"[^a-z0-9._-]+", "-", "-".join(words).lower()).strip("._-")[:64]
    if not name:
        raise UsageError("the bundle needs a name", hint="give --name NAME")
    return name


def _proof(result: ExportResult) -> str:
    parity = result.parity
    worst = {
        field.name: getattr(parity, field.name)
        for field in fields(parity)
        if field.name not in ("variants", "image_variants")
    }
    differences = ", ".join(
        f"{name.replace('_', ' ')} {value:.1e}" for name, value in worst.items()
    )
    proof = f"largest differences to torch: {differences}"
    for precision, cosine in parity.image_variants:
        proof += f"; image encoder in {precision}: cosine of at least {cosine:.3f} to float32"
    return proof
