"""`robustzs export`: a bundle from a torch model, and torch models from a bundle."""

from __future__ import annotations

import sys
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from robustzs.cli.escape import terminal_safe
from robustzs.cli.models import complete_model
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


def export(
    model: Annotated[
        str,
        typer.Argument(
            help="An architecture of open_clip, hf-hub:NAME, a folder, a configuration (.json), or "
            "a bundle that carries weights.",
            autocompletion=complete_model,
        ),
    ],
    pretrained: Annotated[
        str | None,
        typer.Option("--pretrained", "-p", help="A tag, hf-hub:NAME, or a checkpoint file."),
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(
            help="Tag or file that a visual encoder (FARE, TeCoA, QT-AFT) was trained from; "
            "without it openai."
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder to make; without it NAME among your models."),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(help="Name of the bundle; without it made from MODEL and --pretrained."),
    ] = None,
    to: Annotated[Target, typer.Option(help="What to write.")] = Target.bundle,
    templates: Annotated[
        str | None,
        typer.Option(help="Default prompt templates: a set, or one with {}; else single."),
    ] = None,
    resize: Annotated[
        Resize, typer.Option(help="Before the crop; auto: as the checkpoint's origin does.")
    ] = Resize.auto,
    activation: Annotated[
        Activation, typer.Option(help="auto: as the files say; refused where they do not.")
    ] = Activation.auto,
    opset: Annotated[int, typer.Option(min=18, max=30, help="ONNX operator set.")] = 18,
    weights: Annotated[
        bool, typer.Option("--weights", help="Carry weights, for training and attacks.")
    ] = False,
    licence: Annotated[
        str | None, typer.Option(help="Licence of the weights, as an SPDX identifier.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing output.")] = False,
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
