"""`robustzs calibrate`: labelled images in, a calibration file out."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from robustzs.cli.escape import terminal_safe
from robustzs.cli.options import (
    AmbiguousOption,
    BatchOption,
    DeviceOption,
    DigestOption,
    LabelsOption,
    ModelOption,
    OnAmbiguous,
    OnUnknown,
    PrecisionOption,
    Rule,
    Strategy,
    ThreadsOption,
    UnknownOption,
)
from robustzs.cli.progress import status
from robustzs.errors import UsageError

if TYPE_CHECKING:
    from robustzs.calibration.document import CalibrationDocument, ThreatRecord
    from robustzs.classifier import Classifier
    from robustzs.classifier.calibrating import Calibrated
    from robustzs.classifier.embedder import Perturb
    from robustzs.classifier.labelled import LabelledImage

_SHOWN_UNREADABLE = 5
_MADE_HERE = "apgd-ce"


def calibrate(
    data: Annotated[
        Path,
        typer.Option(
            help="A folder of folders named by labels, or a table path,label. Labels are names, "
            "ids or synsets of the hierarchy, at any depth."
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The calibration file.")],
    model: ModelOption = "robustzs-lite",
    labels: LabelsOption = None,
    hierarchy: Annotated[
        str | None,
        typer.Option(
            "--hierarchy",
            "-H",
            help="wordnet, wordnet-nouns, flat, or a file. Else wordnet, or flat with --labels.",
            show_default=False,
        ),
    ] = None,
    target_accuracy: Annotated[
        list[float] | None,
        typer.Option(help="Share of answers that are to be right; repeatable; else 0.9"),
    ] = None,
    keep_temperature: Annotated[
        bool, typer.Option("--keep-temperature", help="Do not fit the temperature.")
    ] = False,
    strategy: Annotated[
        Strategy, typer.Option(help="Where the probability of an inner node comes from.")
    ] = Strategy.marginal,
    rule: Annotated[Rule, typer.Option(help="Walk down greedily, or climb from the best leaf.")] = (
        Rule.greedy
    ),
    templates: Annotated[
        str | None,
        typer.Option(help="Prompt templates: a set's name, or text with {}; else the model's own"),
    ] = None,
    synthetic: Annotated[
        bool,
        typer.Option(
            "--synthetic",
            help="The images are drawn, rendered or composited; every answer says so.",
        ),
    ] = False,
    attack: Annotated[
        str | None,
        typer.Option(
            help="Calibrate for images under this attack: apgd-ce with --eps, which attacks them; "
            "any with --threat, which they suffered already."
        ),
    ] = None,
    eps: Annotated[
        str | None,
        typer.Option(
            help="Attack the images so far, such as 1/255 or L2:0.5; goes with --attack, and needs "
            "the model's weights."
        ),
    ] = None,
    threat: Annotated[
        str | None,
        typer.Option(
            help="The threat model of an attack that the images suffered already, such as "
            "Linf:1/255; goes with --attack."
        ),
    ] = None,
    n_steps: Annotated[
        int | None, typer.Option(min=0, help="Steps of the attack; 100 if it is made here.")
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="What to call the data; else the name of folder or table")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the split of the images.")] = 0,
    on_ambiguous: AmbiguousOption = OnAmbiguous.first,
    on_unknown: UnknownOption = OnUnknown.error,
    batch_size: BatchOption = 16,
    device: DeviceOption = "cpu",
    threads: ThreadsOption = None,
    image_precision: PrecisionOption = None,
    expect_digest: DigestOption = None,
) -> None:
    """Set temperature and theta on labelled images, for a hierarchical accuracy that is promised.

    A fifth of the images sets the temperature, of the others two thirds set theta and the rest
    measures. The file is for this model, precision, labels, tree, strategy and rule alone; anything
    else refuses it.

    \b
    Examples:
      robustzs calibrate --data photos/ -o calibration.json
      robustzs calibrate --data test.csv --target-accuracy 0.8 --target-accuracy 0.9 -o c.json
      robustzs calibrate --data photos/ --attack apgd-ce --eps 1/255 -o attacked.json
      robustzs classify x.png --target-accuracy 0.9 --calibration c.json
    """  # noqa: D301
    from robustzs.classifier import Classifier
    from robustzs.classifier.calibrating import calibrate as run
    from robustzs.classifier.labelled import read_labelled
    from robustzs.cli.render import open_output

    record = _suffered(attack, eps, threat, n_steps)
    images = read_labelled(data)
    with status("loading") as show:
        classifier = Classifier.load(
            model,
            labels=labels,
            hierarchy=hierarchy,
            strategy=strategy.value,
            rule=rule.value,
            templates=templates,
            on_ambiguous="error" if on_ambiguous is OnAmbiguous.ask else on_ambiguous.value,
            on_unknown=on_unknown.value,
            device=device,
            threads=threads,
            image_precision=None if image_precision is None else image_precision.value,
            expect_digest=expect_digest,
            progress=show,
        )
    for warning in classifier.warnings:
        sys.stderr.write(terminal_safe(f"warning: {warning}") + "\n")
    perturb = None
    if eps is not None:
        perturb, record = _attacker(classifier, images, eps, n_steps, device)
    doing = "encoding" if perturb is None else "attacking"
    with classifier, status(doing) as show:
        found = run(
            classifier,
            images,
            target_accuracy or [0.9],
            name=name or data.resolve().name,
            fit_temperature=not keep_temperature,
            seed=seed,
            synthetic=synthetic,
            threat=record,
            perturb=perturb,
            batch_size=batch_size,
            progress=show,
        )
    with open_output(output, sys.stdout) as stream:
        stream.write(found.document.to_json())
    _tell_left_out(found)
    for line in summary_lines(found.document):
        sys.stdout.write(terminal_safe(line) + "\n")


def summary_lines(document: CalibrationDocument) -> list[str]:
    """What was found, for people."""
    source = document.temperature
    fitted = (
        f"fitted on {source.n} images" if source.source == "fitted" else f"the {source.source}'s"
    )
    lines = [
        f"{document.data.name}: {document.data.n} images, {document.model.name}, "
        f"{document.hierarchy.name}",
        f"temperature {document.binding.temperature:.4g}   ({fitted})",
    ]
    for target in document.targets:
        line = f"target {target.accuracy:g}: theta {target.theta:.4f}   (set on {target.n} images)"
        if target.heldout is not None:
            line += (
                f"; on {target.heldout.n} others {target.heldout.hierarchical_accuracy:.3f} "
                f"[{target.heldout.low:.3f}, {target.heldout.high:.3f}] are right, "
                f"specificity {target.heldout.specificity:.3f}"
            )
        lines.append(line)
    return [*lines, document.guarantee]


def _suffered(
    attack: str | None, eps: str | None, threat: str | None, n_steps: int | None
) -> ThreatRecord | None:
    """The attack that images suffered already; ``None`` where it is made here, or there is none."""
    from robustzs.calibration.document import ThreatRecord
    from robustzs.threat import ThreatModel

    if attack is None and eps is None and threat is None and n_steps is None:
        return None
    if attack is None or (eps is None) == (threat is None):
        raise UsageError(
            "--attack goes with --eps, which attacks the images, or with --threat, which they "
            "suffered already",
            hint="--attack apgd-ce --eps 1/255",
        )
    if threat is None:
        if attack != _MADE_HERE:
            raise UsageError(
                f"the attack {attack!r} is not made here", hint=f"--attack {_MADE_HERE} --eps {eps}"
            )
        return None
    model = ThreatModel.parse(threat)
    if model.eps == 0.0:
        raise UsageError(f"the threat {threat} changes nothing", hint="leave --attack out")
    return ThreatRecord(norm=model.norm, eps=model.eps, attack=attack, n_steps=n_steps)


def _attacker(
    classifier: Classifier,
    images: Sequence[LabelledImage],
    eps: str,
    n_steps: int | None,
    device: str,
) -> tuple[Perturb, ThreatRecord]:
    """What attacks the images."""
    from robustzs.errors import MissingExtraError
    from robustzs.threat import ThreatModel

    try:
        from robustzs_training.evaluation.hierarchical.calibration import attacker_of
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "torch", "train") from error
    return attacker_of(
        classifier, images, ThreatModel.parse(eps), n_steps=n_steps or 100, device=device
    )


def _tell_left_out(found: Calibrated) -> None:
    """What a person should know of the images: those that cannot be read, and copies."""
    lines = []
    if found.unreadable:
        lines.append(f"warning: {len(found.unreadable)} images cannot be read and were left out")
        lines += [f"  {one.name}: {one.message}" for one in found.unreadable[:_SHOWN_UNREADABLE]]
    if repeated := found.document.data.n_repeated:
        lines.append(
            f"warning: {repeated} images are copies of others, and the guarantee is for images "
            "that are independent: take them out"
        )
    for line in lines:
        sys.stderr.write(terminal_safe(line) + "\n")
