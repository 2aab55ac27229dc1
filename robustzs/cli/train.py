"""`robustzs train`: harden a model."""

from __future__ import annotations

import json
import sys
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from robustzs.cli.escape import terminal_safe
from robustzs.cli.options import complete_model
from robustzs.errors import MissingExtraError, UsageError

if TYPE_CHECKING:
    from robustzs_training.command import TrainOutcome
    from robustzs_training.request import TrainRequest


class Device(str, Enum):
    """Where to train."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


RecipeOption = Annotated[
    str | None, typer.Option("--recipe", "-r", help="A recipe's name, or your own YAML file.")
]
OutputOption = Annotated[
    Path | None,
    typer.Option("--output", "-o", help="Folder for the model, its numbers and the run."),
]
DataOption = Annotated[
    str | None,
    typer.Option("--data", "-d", help="Folder of images, or shards; instead of the recipe's."),
]
ModelOption = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        help="A bundle with weights, a folder or hf-hub:NAME; instead of the recipe's.",
        autocompletion=complete_model,
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", "-s", metavar="KEY=VALUE", help="Change the recipe; may be repeated."),
]
StepsOption = Annotated[int | None, typer.Option(min=1, help="How long; instead of the recipe's.")]
SeedOption = Annotated[int | None, typer.Option(min=0, help="Instead of the recipe's.")]
DeviceOption = Annotated[Device, typer.Option(help="auto: a GPU if there is one.")]
WorkersOption = Annotated[
    int | None, typer.Option(min=0, help="Processes that read images; instead of the recipe's.")
]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Check everything, time one step, and write nothing.")
]
ResumeOption = Annotated[
    bool, typer.Option("--resume/--no-resume", help="Go on where a run in --output stopped.")
]
EvaluateOption = Annotated[
    bool, typer.Option("--evaluate/--no-evaluate", help="Measure before and after.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="The summary or plan as JSON on stdout.")]
ListOption = Annotated[bool, typer.Option("--list", help="List the recipes and stop.")]
ShowOption = Annotated[
    str | None, typer.Option("--show", metavar="NAME", help="Print a recipe and stop.")
]

# No line is longer than a terminal of 80 columns shows.
HELP = """Harden a model against adversarial images, measure the gain, export it.

\b
1. See it work: minutes on two cores, no data of yours, no download.
     robustzs train --recipe quickstart --output hardened
     robustzs classify photo.jpg --model hardened --hierarchy wordnet
2. Your images: a folder for each class in photos/train, and others in
   photos/val to be measured on. Look at the plan first; it costs one step.
     robustzs train -r quickstart --data photos/ -o mine --dry-run
     robustzs train -r quickstart --data photos/ -o mine
3. Another recipe, and what is in it. --set changes any line of it.
     robustzs train --list
     robustzs train --show qt-aft-vit-b-16
     robustzs train -r fare -d photos/ -o out --set threat.eps=2/255
4. Captions, for the recipes named qt-aft: by a vision-language model, or
   from WordNet.
     robustzs caption photos/train --source gloss -o captions.jsonl
     robustzs train -r qt-aft-vit-b-16 -d photos/ -o out \\
         -s data.captions=captions.jsonl
5. All GPUs of a machine; the batch is shared out among them.
     torchrun --nproc-per-node 8 -m robustzs train \\
         -r qt-aft-vit-b-16 -d imagenet/train -o out

\b
Ctrl-C, a crash or a reboot cost the steps since the last checkpoint, no
more: the same command goes on from there. DIR then holds
  the model         for `classify`, `serve` and `train --model DIR`
  summary.json      accuracy before and after, clean and attacked
  run/              checkpoints, logs, the recipe as it was resolved

docs/training.md tells the rest.
"""


def train(
    recipe: RecipeOption = None,
    output: OutputOption = None,
    data: DataOption = None,
    model: ModelOption = None,
    changes: SetOption = None,
    steps: StepsOption = None,
    seed: SeedOption = None,
    device: DeviceOption = Device.auto,
    workers: WorkersOption = None,
    dry_run: DryRunOption = False,
    resume: ResumeOption = True,
    evaluate: EvaluateOption = True,
    as_json: JsonOption = False,
    list_recipes: ListOption = False,
    show: ShowOption = None,
) -> None:
    """Harden a model, measure what it gained, and export it; people read :data:`HELP`."""
    try:
        import robustzs_training.command  # noqa: F401
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "torch", "train") from error
    if list_recipes:
        _list()
        return
    if show is not None:
        from robustzs_training.recipe_files import recipe_text

        sys.stdout.write(recipe_text(show))
        return
    request = _request(recipe, output, data, model, changes, steps, seed, workers, resume, evaluate)
    from robustzs_training.command import choose_device

    choose_device(device.value)
    if dry_run:
        _plan(request, as_json)
    else:
        _run(request, as_json)


def _request(
    recipe: str | None,
    output: Path | None,
    data: str | None,
    model: str | None,
    changes: list[str] | None,
    steps: int | None,
    seed: int | None,
    workers: int | None,
    resume: bool,
    evaluate: bool,
) -> TrainRequest:
    from robustzs_training.request import TrainRequest

    if recipe is None:
        raise UsageError("which recipe?", hint="--recipe quickstart, or see --list")
    if output is None:
        raise UsageError("where to?", hint="--output DIR, a folder that is made")
    return TrainRequest(
        recipe=recipe,
        output=output,
        data=data,
        model=model,
        changes=tuple(changes or ()),
        steps=steps,
        seed=seed,
        n_workers=workers,
        resume=resume,
        evaluate=evaluate,
    )


def _say(line: str) -> None:
    sys.stderr.write(f"{terminal_safe(line)}\n")
    sys.stderr.flush()


def _list() -> None:
    from robustzs_training.recipe_files import list_recipes

    found = list_recipes()
    width = max(len(info.name) for info in found)
    for info in found:
        sys.stdout.write(f"{info.name:<{width}}  {info.summary}\n")


def _plan(request: TrainRequest, as_json: bool) -> None:
    from robustzs_training.plan import make_plan

    plan = make_plan(request, say=_say)
    if as_json:
        _print_json(plan.document)
    else:
        for title, text in plan.lines:
            sys.stdout.write(terminal_safe(f"{title:<9} {text}") + "\n")
    for problem in plan.problems:
        _say(f"error: {problem}")
    if plan.problems:
        raise typer.Exit(1)


def _run(request: TrainRequest, as_json: bool) -> None:
    from robustzs_training.command import run_train

    from robustzs.cli.progress import status

    outcome = run_train(request, say=_say, progress=status)
    if not outcome.is_main:
        raise typer.Exit(130 if outcome.interrupted else 0)
    if outcome.interrupted:
        _say(
            f"stopped after step {outcome.steps}; a checkpoint is in {request.output}. "
            "The same command goes on from there."
        )
        raise typer.Exit(130)
    if outcome.was_finished:
        _say(f"{request.output} is finished already; --no-resume starts over")
    _report(request, outcome, as_json)


def _report(request: TrainRequest, outcome: TrainOutcome, as_json: bool) -> None:
    summary = outcome.summary or {}
    if as_json:
        _print_json(summary)
        return
    _print_table(summary)
    if summary.get("bundle"):
        folder = terminal_safe(str(request.output))
        sys.stdout.write(
            f"\nThe model is in {folder}. Try it:\n"
            f"  robustzs classify photo.jpg --model {folder} --hierarchy wordnet\n"
        )


def _print_json(document: Any) -> None:
    sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False) + "\n")


def _print_table(summary: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(file=sys.stdout, highlight=False)
    before, after, gain = summary.get("before"), summary.get("after"), summary.get("gain")
    if before and after and gain:
        table = Table(title=summary["recipe"], title_justify="left")
        for title in ("", "before", "after", "gain", "95% interval"):
            table.add_column(title, justify="left" if not title else "right")
        for name, key, interval in (
            ("clean", "clean_accuracy", "clean_interval"),
            ("attacked", "robust_accuracy", "interval"),
        ):
            low, high = (100.0 * end for end in gain[interval])
            table.add_row(
                name,
                f"{before[key]:.1%}",
                f"{after[key]:.1%}",
                f"{100.0 * gain[key]:+.1f} points",
                f"{low:+.1f} to {high:+.1f}",
            )
        console.print(table)
        protocol = summary["protocol"]
        console.print(
            f"{protocol['n']} held-out pictures; {protocol['norm']} eps {protocol['eps']}, "
            f"{protocol['n_steps']} iterations; {protocol['attack']}",
            markup=False,
        )
    seconds = summary.get("seconds", {})
    times = ", ".join(f"{name} {value:.0f} s" for name, value in seconds.items())
    console.print(f"{summary.get('steps')} steps; {times}", markup=False)
