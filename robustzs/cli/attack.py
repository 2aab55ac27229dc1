"""`robustzs attack`: one image that a model gets wrong, and what it answered before and after."""

from __future__ import annotations

import sys
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from robustzs.cli.escape import json_safe, terminal_safe
from robustzs.cli.options import (
    AmbiguousOption,
    LabelsOption,
    OnAmbiguous,
    OnUnknown,
    ThreadsOption,
    UnknownOption,
    complete_model,
)
from robustzs.errors import MissingExtraError, UsageError

if TYPE_CHECKING:
    from robustzs_training.evaluation.single import SingleOutcome

    from robustzs.answer import Answer, PathNode


class AttackName(str, Enum):
    """Attacks that need nothing but the image, the labels and the model."""

    autoattack = "autoattack"
    apgd_ce = "apgd-ce"
    apgd_dlr = "apgd-dlr"
    apgd_t = "apgd-t"
    fab_t = "fab-t"
    square = "square"
    pgd = "pgd"
    cw = "cw"
    features = "features"


class AttackFormat(str, Enum):
    """How the outcome is shown."""

    text = "text"
    json = "json"


def attack(
    image: Annotated[str, typer.Argument(help="A file, or - for an image on stdin.")],
    model: Annotated[
        str,
        typer.Option(
            "--model",
            "-m",
            help="A bundle with weights: name or folder.",
            autocompletion=complete_model,
        ),
    ] = "robustzs-lite",
    labels: LabelsOption = None,
    hierarchy: Annotated[
        str | None,
        typer.Option(
            "--hierarchy",
            "-H",
            help="wordnet, flat, or a file. Else wordnet, or flat with --labels.",
            show_default=False,
        ),
    ] = None,
    eps: Annotated[
        str, typer.Option(help="Radius in Linf, of pixels in [0, 1]; whole 255ths are used.")
    ] = "1/255",
    attack_name: Annotated[
        AttackName, typer.Option("--attack", "-a", help="Which attack.")
    ] = AttackName.apgd_ce,
    n_steps: Annotated[int, typer.Option(min=1, max=100_000, help="Of the attack.")] = 100,
    label: Annotated[
        str | None,
        typer.Option(
            help="What the image shows, at any depth; else what the model answers before.",
            show_default=False,
        ),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(
            help="What the model shall answer, at any depth; else anything wrong.",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the attack's randomness.")] = 0,
    templates: Annotated[
        str | None,
        typer.Option(help="Prompt templates: a set's name, or text with {}; else the model's own"),
    ] = None,
    theta: Annotated[
        float | None,
        typer.Option(help="Go deeper while a node's probability is above this"),
    ] = None,
    on_ambiguous: AmbiguousOption = OnAmbiguous.first,
    on_unknown: UnknownOption = OnUnknown.error,
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="The PNG to write; an older one is replaced."),
    ] = Path("adversarial.png"),
    output_format: Annotated[AttackFormat, typer.Option("--format", "-f")] = AttackFormat.text,
    device: Annotated[str, typer.Option(help="Of the attack: cpu, cuda, cuda:N or auto.")] = "auto",
    threads: ThreadsOption = None,
) -> None:
    """Make one adversarial image, and show what the model answers before and after.

    The image is a PNG of the model's input size, whose pixels differ from the resized original by
    at most --eps. It is read back and classified by the deployed model before anything is said.

    \b
    Examples:
      robustzs attack cat.jpg
      robustzs attack cat.jpg --eps 2/255 --target "espresso" -o not-a-cat.png
      robustzs attack cat.jpg --label cat --labels "cat,dog,bird" --format json
      robustzs classify adversarial.png

    Exit codes: 0 the attack ran, whether or not it succeeded (it says which; `turned` in JSON);
    1 something failed; 2 the command was called wrongly.
    """  # noqa: D301
    try:
        from robustzs_training.evaluation.single import SingleRequest, attack_image
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "torch", "train") from error
    from robustzs.cli.progress import status
    from robustzs.cli.render import open_output_bytes
    from robustzs.images.sources import ImageSource
    from robustzs.labels.label_set import LabelSet
    from robustzs.threat import ThreatModel

    _check_output(output, image)
    if on_ambiguous is OnAmbiguous.ask:
        raise UsageError("--on-ambiguous ask is for `robustzs classify`", hint="error or first")
    request = SingleRequest(
        image=ImageSource(image),
        model=model,
        labels=None if labels is None else LabelSet.parse(labels),
        hierarchy=None if hierarchy is None else [hierarchy],
        templates=templates,
        theta=theta,
        threat=ThreatModel.parse(eps),
        attack=attack_name.value,
        n_steps=n_steps,
        seed=seed,
        label=label,
        target=target,
        on_ambiguous=on_ambiguous.value,
        on_unknown=on_unknown.value,
        device=device,
        threads=threads,
    )
    with status("attacking") as show:
        outcome = attack_image(request, progress=show)
    with open_output_bytes(output) as stream:
        stream.write(outcome.png)
    if output_format is AttackFormat.json:
        sys.stdout.write(json_safe(as_document(outcome, output), indent=2) + "\n")
    else:
        _print_text(outcome, output)


def _check_output(output: Path, image: str) -> None:
    if output.suffix.lower() != ".png":
        raise UsageError(
            f"--output {str(output)!r} is not a PNG: other formats would change the perturbation",
            hint="name it adversarial.png, for example",
        )
    try:
        same = output.exists() and output.samefile(image)
    except (OSError, ValueError):
        same = False
    if same:
        raise UsageError(f"--output {str(output)!r} is the image itself", hint="name another file")


# ---- what is said --------------------------------------------------------------------------------


def as_document(outcome: SingleOutcome, output: Path) -> dict[str, Any]:
    """The outcome for programs."""
    before, after = outcome.label_probability
    target = outcome.target_probability
    return {
        "image": outcome.before.image,
        "output": str(output),
        "size": list(outcome.size),
        "model_size": list(outcome.model_size),
        "label": outcome.label,
        "target": outcome.target,
        "eps": outcome.eps,
        "linf": f"{outcome.levels}/255",
        "share_changed": round(outcome.share_changed, 6),
        "attack": dict(outcome.attack),
        "already_wrong": outcome.already_wrong,
        "turned": outcome.turned,
        "true_before": outcome.true_before,
        "true_after": outcome.true_after,
        "label_probability": {"before": before, "after": after},
        "target_probability": None if target is None else {"before": target[0], "after": target[1]},
        "parts_at": outcome.parts_at,
        "before": outcome.before.model_dump(mode="json"),
        "after": {**outcome.after.model_dump(mode="json"), "image": str(output)},
        "seconds": round(outcome.seconds, 3),
    }


def verdict_lines(outcome: SingleOutcome, output: Path) -> list[str]:
    """What happened, in sentences."""
    before, after = outcome.before.flat_top1, outcome.after.flat_top1
    label = outcome.label
    if outcome.already_wrong:
        lines = [
            f"nothing to do: top-1 is {before.name!r} without any attack"
            + ("" if outcome.target is not None else f", and {label!r} is right")
        ]
    elif outcome.turned:
        lines = [f"turned: top-1 was {before.name!r} and is {after.name!r}"]
    else:
        wanted = "" if outcome.target is None else f" {outcome.target!r}"
        lines = [
            f"the attack failed: top-1 is {after.name!r}, not the target{wanted}"
            if outcome.target is not None
            else f"the attack failed: top-1 is still right ({after.name!r})"
        ]
    lines.append(_change(f"p({label})", outcome.label_probability))
    if outcome.target is not None and outcome.target_probability is not None:
        lines.append(_change(f"p({outcome.target})", outcome.target_probability))
    if outcome.turned and outcome.target is None:
        if outcome.true_after:
            lines.append("the hierarchical answer is less specific and still true")
        elif outcome.true_before:
            lines.append("the hierarchical answer was true and is not any more")
    height, width = outcome.size
    attack = str(outcome.attack.get("attack") or outcome.attack.get("name") or "the attack")
    lines.append(
        f"{attack} used {outcome.levels}/255 of the allowed {outcome.eps} (Linf); "
        f"{outcome.share_changed:.0%} of the pixels differ; {outcome.seconds:.1f} s"
    )
    lines.append(f"{output}   {width} x {height}, 8 bits, {_why_that_size(outcome)}")
    return lines


def _change(what: str, pair: tuple[float, float]) -> str:
    return f"{what}: {pair[0]:.3f} -> {pair[1]:.3f}"


def _why_that_size(outcome: SingleOutcome) -> str:
    if outcome.size == outcome.model_size:
        return "the model's input size, so that preprocessing leaves every pixel as it is"
    height, width = outcome.model_size
    return (
        f"so that preprocessing leaves every pixel as it is: the model sees the {width} x {height} "
        "in the middle"
    )


def _print_text(outcome: SingleOutcome, output: Path) -> None:
    from rich.console import Console

    console = Console(file=sys.stdout, highlight=False, markup=False, soft_wrap=False)
    sys.stdout.write(terminal_safe(outcome.before.image) + "\n\n")
    console.print(_table(outcome))
    sys.stdout.write("\n")
    for line in verdict_lines(outcome, output):
        sys.stdout.write(terminal_safe(line) + "\n")
    for warning in outcome.after.warnings:
        sys.stderr.write(terminal_safe(f"warning: {warning}") + "\n")


def _table(outcome: SingleOutcome) -> Any:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="")
    for title, side in (
        ("depth", "right"),
        ("p", "left"),
        ("before", "left"),
        ("", "left"),
        ("p", "left"),
        ("after", "left"),
    ):
        table.add_column(title, justify="right" if side == "right" else "left")
    before, after = outcome.before, outcome.after
    parts = outcome.parts_at
    for place in range(max(len(before.path), len(after.path))):
        apart = parts is not None and place >= parts
        style = "bold" if apart else ""
        one, other = _cells(before, place), _cells(after, place)
        table.add_row(
            str(place),
            one[0],
            Text(one[1], style),
            "|" if not apart else "/" if place == parts else " ",
            other[0],
            Text(other[1], style),
        )
    table.add_row(
        "top-1",
        f"{before.flat_top1.probability:.3f}",
        terminal_safe(before.flat_top1.name),
        "",
        f"{after.flat_top1.probability:.3f}",
        terminal_safe(after.flat_top1.name),
    )
    return table


def _cells(answer: Answer, place: int) -> tuple[str, str]:
    if place >= len(answer.path):
        return "", ""
    node: PathNode = answer.path[place]
    mark = "> " if node.id == answer.prediction.id else "  "
    return f"{node.probability:.3f}", mark + terminal_safe(node.name)
