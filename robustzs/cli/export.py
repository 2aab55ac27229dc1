"""`robustzs export`: a bundle from a torch model, and torch models from a bundle."""

from __future__ import annotations

import sys
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from robustzs.cli.escape import terminal_safe
from robustzs.cli.options import complete_model
from robustzs.errors import MissingExtraError


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


ModelArgument = Annotated[
    str,
    typer.Argument(
        help="An architecture of open_clip, hf-hub:NAME, a folder, a configuration (.json), or "
        "a bundle that carries weights.",
        autocompletion=complete_model,
    ),
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
ForceOption = Annotated[bool, typer.Option("--force", help="Replace an existing output.")]


def export(
    model: ModelArgument,
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
    force: ForceOption = False,
) -> None:
    """Make a bundle from a torch model, after proving that it gives the same features.

    Examples:
      robustzs export ViT-B-32 --pretrained openai --licence MIT
      robustzs export ViT-L-14 --pretrained fare_eps_4.pt --name fare4
      robustzs export robustzs-lite --to open-clip --output lite-open-clip
    """
    try:
        from robustzs_training.export.command import ExportArguments, run_export
        from robustzs_training.export.sources import SourceRequest
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "torch", "train") from error
    request = SourceRequest(
        model=model,
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
        )
    )
    for note in outcome.notes:
        sys.stderr.write(f"{terminal_safe(note)}\n")
    sys.stdout.write(f"{terminal_safe(str(outcome.path))}\n")
