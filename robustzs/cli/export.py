"""`robustzs export`: a bundle from a torch model, and torch models from a bundle."""

from __future__ import annotations

import sys
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from robustzs.cli.escape import terminal_safe
from robustzs.cli.options import complete_model
from robustzs.errors import MissingExtraError, UsageError


class Target(str, Enum):
    """What is written."""

    bundle = "bundle"
    open_clip = "open-clip"
    huggingface = "huggingface"


class Resize(str, Enum):
    """How images are resized before the crop."""

    auto = "auto"
    open_clip = "open-clip"
    qt_aft = "qt-aft"


class Activation(str, Enum):
    """The GELU that the weights were trained with."""

    auto = "auto"
    gelu = "gelu"
    quickgelu = "quickgelu"


class ImagePrecision(str, Enum):
    """In what numbers the image encoder computes."""

    fp32 = "fp32"
    int8 = "int8"


class TritonDevice(str, Enum):
    """Where Triton runs the encoders."""

    auto = "auto"
    cpu = "cpu"
    gpu = "gpu"


ModelArgument = Annotated[
    str | None,
    typer.Argument(
        help="An architecture of open_clip, hf-hub:NAME, a folder, a configuration (.json), or "
        "a bundle that carries weights.",
        autocompletion=complete_model,
        show_default=False,
    ),
]
NamedOption = Annotated[
    str | None, typer.Option("--model", "-m", help="MODEL, named.", autocompletion=complete_model)
]
PretrainedOption = Annotated[
    str | None,
    typer.Option("--pretrained", "-p", help="A tag, hf-hub:NAME, or a checkpoint file."),
]
BaseOption = Annotated[
    str | None,
    typer.Option(
        help="Tag or file that a visual encoder (FARE, TeCoA, QT-AFT) was trained from; "
        "without it openai."
    ),
]
OutputOption = Annotated[
    Path | None,
    typer.Option("--output", "-o", help="Folder to make; without it NAME among your models."),
]
NameOption = Annotated[
    str | None,
    typer.Option(help="Name of the bundle; without it made from MODEL and --pretrained."),
]
ToOption = Annotated[Target, typer.Option(help="What to write.")]
TemplatesOption = Annotated[
    str | None,
    typer.Option(help="Default prompt templates: a set, or one with {}; else single."),
]
ResizeOption = Annotated[
    Resize, typer.Option(help="Before the crop; auto: as the checkpoint's origin does.")
]
ActivationOption = Annotated[
    Activation, typer.Option(help="auto: as the files say; refused where they do not.")
]
OpsetOption = Annotated[int, typer.Option(min=18, max=30, help="ONNX operator set.")]
WeightsOption = Annotated[
    bool, typer.Option("--weights", help="Carry weights, for training and attacks.")
]
LicenceOption = Annotated[
    str | None, typer.Option(help="Licence of the weights, as an SPDX identifier.")
]
ImagePrecisionOption = Annotated[
    ImagePrecision,
    typer.Option(help="int8: an image encoder of int8 beside the float32 one, which always ships."),
]
CalibrateOption = Annotated[
    Path | None,
    typer.Option(help="Folder of pictures, none held out, to calibrate int8 on."),
]
DefaultPrecisionOption = Annotated[
    ImagePrecision,
    typer.Option(help="The image encoder that is used (served) unless another is asked for."),
]
ForceOption = Annotated[bool, typer.Option("--force", help="Replace an existing output.")]
TritonOption = Annotated[
    Path | None,
    typer.Option(help="Write a Triton model repository of bundle MODEL into this folder."),
]
TritonDeviceOption = Annotated[
    TritonDevice, typer.Option(help="Of the Triton instances; auto: GPUs where it has some.")
]
InstancesOption = Annotated[
    int, typer.Option(min=1, max=64, help="Triton instances of each encoder, on each device.")
]
TritonThreadsOption = Annotated[
    int, typer.Option(min=1, max=1024, help="Threads of a Triton instance on the CPU.")
]
TritonRowsOption = Annotated[
    int, typer.Option(min=1, max=1024, help="Largest batch of the Triton models.")
]


def export(
    model: ModelArgument = None,
    named: NamedOption = None,
    pretrained: PretrainedOption = None,
    base: BaseOption = None,
    output: OutputOption = None,
    name: NameOption = None,
    to: ToOption = Target.bundle,
    templates: TemplatesOption = None,
    resize: ResizeOption = Resize.auto,
    activation: ActivationOption = Activation.auto,
    opset: OpsetOption = 18,
    weights: WeightsOption = False,
    licence: LicenceOption = None,
    image_precision: ImagePrecisionOption = ImagePrecision.fp32,
    calibrate_on: CalibrateOption = None,
    default_image_precision: DefaultPrecisionOption = ImagePrecision.fp32,
    force: ForceOption = False,
    triton: TritonOption = None,
    triton_device: TritonDeviceOption = TritonDevice.auto,
    triton_instances: InstancesOption = 2,
    triton_threads: TritonThreadsOption = 1,
    triton_max_rows: TritonRowsOption = 32,
) -> None:
    """Make a bundle from a torch model, after proving that it gives the same features.

    With --triton: a model repository for Triton Inference Server from a bundle, without torch.

    Examples:
      robustzs export ViT-B-32 --pretrained openai --licence MIT
      robustzs export ViT-L-14 --pretrained fare_eps_4.pt --name fare4
      robustzs export robustzs-lite --to open-clip --output lite-open-clip
      robustzs export mine --image-precision int8 --calibrate-on photos/ --output mine-int8
      robustzs export --model robustzs-lite --triton models/
    """
    if (model is None) == (named is None):
        raise UsageError("name one MODEL to export", hint="robustzs export robustzs-lite ...")
    source = model or named or ""
    if triton is not None:
        given = {
            "--pretrained": pretrained,
            "--base": base,
            "--output": output,
            "--name": name,
            "--templates": templates,
            "--licence": licence,
            "--calibrate-on": calibrate_on,
        }
        for option, value in given.items():
            if value is not None:
                raise UsageError(
                    f"{option} does not go with --triton, which writes a bundle as it is",
                    hint="export the bundle first, then that with --triton",
                )
        _write_triton(
            source,
            triton,
            device=triton_device,
            instances=triton_instances,
            threads=triton_threads,
            max_rows=triton_max_rows,
            force=force,
        )
        return
    try:
        from robustzs_training.export.command import ExportArguments, run_export
        from robustzs_training.export.sources import SourceRequest
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "torch", "train") from error
    request = SourceRequest(
        model=source,
        pretrained=pretrained,
        base=base,
        activation=activation.value,
        resize=resize.value,
    )
    outcome = run_export(
        ExportArguments(
            request=request,
            target=to.value,
            output=output,
            name=name,
            templates=templates,
            opset=opset,
            weights=weights,
            licence=licence,
            force=force,
            image_precision=image_precision.value,
            calibrate_on=calibrate_on,
            default_image_precision=default_image_precision.value,
        )
    )
    for note in outcome.notes:
        sys.stderr.write(f"{terminal_safe(note)}\n")
    sys.stdout.write(f"{terminal_safe(str(outcome.path))}\n")


def _write_triton(
    model: str,
    target: Path,
    *,
    device: TritonDevice,
    instances: int,
    threads: int,
    max_rows: int,
    force: bool,
) -> None:
    from robustzs_serving.triton import ServerOptions, write_repository

    from robustzs.bundle.registry import resolve_model
    from robustzs.bundle.store import Bundle

    options = ServerOptions(
        device=device.value, instances=instances, threads=threads, max_rows=max_rows
    )
    bundle = Bundle.load(resolve_model(model))
    for folder in write_repository(bundle, target, options=options, force=force):
        sys.stdout.write(f"{terminal_safe(str(folder))}\n")
