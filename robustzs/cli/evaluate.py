"""`robustzs evaluate`: clean and robust accuracy of a model, as a card."""

from __future__ import annotations

import sys
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from robustzs.cli.escape import json_safe, terminal_safe
from robustzs.cli.options import complete_model
from robustzs.errors import MissingExtraError, UsageError

if TYPE_CHECKING:
    from robustzs_training.evaluation.evaluate_command import EvaluateOutcome

    from robustzs.cards.schema import Card, Result


class EvaluateFormat(str, Enum):
    """How the card is shown."""

    text = "text"
    json = "json"


class EnsembleName(str, Enum):
    """Members of autoattack."""

    fare = "fare"
    qt_aft = "qt-aft"
    standard = "standard"


class Resolution(str, Enum):
    """Where the perturbation lives."""

    model = "model"
    native = "native"


ModelOption = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        help="A bundle with weights: name or folder.",
        autocompletion=complete_model,
    ),
]
DataOption = Annotated[
    list[str] | None,
    typer.Option(
        "--data",
        "-d",
        help="Folder of folders, a table path,label, shards, or a set's name; may be repeated.",
    ),
]
EpsOption = Annotated[
    str, typer.Option(help="Radii between commas, of pixels in [0, 1]; L2:0.5 for that norm.")
]
AttackOption = Annotated[
    str, typer.Option("--attack", "-a", help="Attacks between commas; the verdict is autoattack's.")
]
PresetOption = Annotated[
    str | None,
    typer.Option(help="A paper's protocol: fare, qt-aft or tecoa; needs --root, sets the attacks."),
]
RootOption = Annotated[Path | None, typer.Option(help="Folder of the preset's data sets.")]
SkipOption = Annotated[
    bool, typer.Option("--skip-missing", help="Measure the data sets that are in --root.")
]
NOption = Annotated[
    int | None, typer.Option("--n", "-n", min=1, help="Draw so many pictures; else all.")
]
SeedOption = Annotated[int, typer.Option(min=0, help="Of the draw, and of all attacks.")]
LabelsOption = Annotated[
    str | None,
    typer.Option(
        "--labels",
        "-l",
        help="a,b,c, a file, or `own`: the pictures' own. Else ImageNet-1k's or a named set's.",
    ),
]
HierarchyOption = Annotated[
    str, typer.Option("--hierarchy", "-H", help="Tree that --depths count in: wordnet, or a file.")
]
DepthsOption = Annotated[
    str | None,
    typer.Option(help="3,5 or all: measure and attack there, too, rolled up and by prompts."),
]
TemplatesOption = Annotated[
    str | None, typer.Option(help="Prompt templates: a set's name, or text with {}.")
]
ResolutionOption = Annotated[
    Resolution, typer.Option(help="Perturb the model's input, or the pictures' own pixels.")
]
EnsembleOption = Annotated[EnsembleName, typer.Option(help="Members of autoattack.")]
StepsOption = Annotated[int | None, typer.Option(min=1, help="Of attacks; else each one's own.")]
QueriesOption = Annotated[int, typer.Option(min=1, help="Of square.")]
PrecisionOption = Annotated[
    str | None,
    typer.Option(
        help="Attack the deployed ONNX graphs, too: all, default, or image/text such as int8/fp32. "
        "Clean accuracy is told of all."
    ),
]
CaptionsOption = Annotated[
    Path | None, typer.Option(help="Table of captions, for the attack `captions`.")
]
PromptsOption = Annotated[
    str | None, typer.Option(help="Another template with {}, for the attack `prompts`.")
]
BatchOption = Annotated[int, typer.Option(min=1, max=4096, help="Pictures attacked together.")]
DeviceOption = Annotated[str, typer.Option(help="cpu, cuda, cuda:N or auto.")]
OutputOption = Annotated[
    Path | None,
    typer.Option("--output", "-o", help="Folder for card.json and for going on after a stop."),
]
ReportOption = Annotated[
    Path | None,
    typer.Option(help="As --output, and write report.html with plots and turned pictures there."),
]
ResumeOption = Annotated[
    bool, typer.Option("--resume/--no-resume", help="Go on with what --output holds.")
]
MinutesOption = Annotated[
    float | None, typer.Option(help="Start no batch after that; report what there is.")
]
OutcomesOption = Annotated[
    bool,
    typer.Option(
        "--store-outcomes/--no-store-outcomes",
        help="A bit for each picture in the card: `robustzs compare` pairs by them.",
    ),
]
WriteCardOption = Annotated[
    bool, typer.Option("--write-card", help="Put the card into the bundle, too.")
]
FormatOption = Annotated[EvaluateFormat, typer.Option("--format", "-f", help="On stdout.")]


_OF_A_PRESET = (
    *("eps", "attack", "ensemble", "labels", "templates", "resolution", "captions", "prompts"),
)


def evaluate(
    context: typer.Context,
    model: ModelOption = "robustzs-lite",
    data: DataOption = None,
    eps: EpsOption = "1/255,2/255",
    attack: AttackOption = "autoattack",
    preset: PresetOption = None,
    root: RootOption = None,
    skip_missing: SkipOption = False,
    n: NOption = None,
    seed: SeedOption = 0,
    labels: LabelsOption = None,
    hierarchy: HierarchyOption = "wordnet",
    depths: DepthsOption = None,
    templates: TemplatesOption = None,
    resolution: ResolutionOption = Resolution.model,
    ensemble: EnsembleOption = EnsembleName.fare,
    steps: StepsOption = None,
    queries: QueriesOption = 5000,
    precision: PrecisionOption = None,
    captions: CaptionsOption = None,
    prompts: PromptsOption = None,
    batch_size: BatchOption = 32,
    device: DeviceOption = "auto",
    output: OutputOption = None,
    report: ReportOption = None,
    resume: ResumeOption = True,
    max_minutes: MinutesOption = None,
    store_outcomes: OutcomesOption = True,
    write_card: WriteCardOption = False,
    output_format: FormatOption = EvaluateFormat.text,
) -> None:
    """Measure clean and robust accuracy, with intervals, and write the card.

    \b
    1. Your pictures, one folder for each label (names, synsets or wnids), or a table path,label.
         robustzs evaluate --data photos/ --n 200
         robustzs evaluate --data data.csv --eps 1/255,2/255 --attack autoattack --format json
    2. Keep it: what was found survives Ctrl-C, a crash and a reboot; the same command goes on.
         robustzs evaluate -m mine -d photos/ --output measured
         robustzs evaluate -m mine -d photos/ --output measured --max-minutes 60
    3. How hard, and how it compares. Our own PGD flatters; it is there to compare with.
         robustzs evaluate -m mine -d photos/ -o measured --attack autoattack,square,pgd
         robustzs evaluate -m mine -d photos/ --report measured
         robustzs compare before/card.json measured/card.json
    4. Every depth of a hierarchy, each attacked on its own loss.
         robustzs evaluate -m mine -d photos/ -o deep --hierarchy wordnet --depths 3,5
    5. A paper's protocol: pictures, templates, resize and attacks as its authors had them.
         robustzs evaluate -m mine --preset fare --root datasets/ -o fare
    6. All GPUs of a machine share the pictures; the card is the same.
         torchrun --nproc-per-node 8 -m robustzs evaluate -m mine -d photos/ -o measured
    7. The deployed graphs themselves, as a service runs them, on pixels of 8 bits.
         robustzs evaluate -m mine -d photos/ -o measured --precision all
    8. Ship the numbers with the model.
         robustzs evaluate -m mine -d photos/ -o measured --write-card

    Ctrl-C ends a run with a card of what there is, marked as not complete. Numbers that the checks
    do not trust are not published: the exit code is 1, and the card says why.
    docs/evaluation.md tells the rest.
    """  # noqa: D301
    if preset is not None:
        _check_preset(context, precision)
    try:
        from robustzs_training.evaluation.evaluate_command import run_evaluate
        from robustzs_training.evaluation.request import (
            EvaluateRequest,
            parse_attacks,
            parse_threats,
            split,
        )
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "torch", "train") from error
    from robustzs.cli.progress import status

    if output is not None and report is not None and output != report:
        raise UsageError("--output and --report are one folder", hint="name one of them")
    request = EvaluateRequest(
        model=model,
        data=tuple(data or ()),
        threats=parse_threats(eps),
        attacks=parse_attacks(attack),
        preset=preset,
        root=root,
        skip_missing=skip_missing,
        labels=labels,
        hierarchy=hierarchy,
        depths=tuple(split(depths)),
        native=resolution is Resolution.native,
        templates=templates,
        n=n,
        seed=seed,
        n_steps=steps,
        n_queries=queries,
        precisions=tuple(split(precision)),
        ensemble=ensemble.value,
        captions=captions,
        prompts=prompts,
        batch_size=batch_size,
        device=device,
        output=output if report is None else report,
        report=report is not None,
        resume=resume,
        max_minutes=max_minutes,
        keep_outcomes=store_outcomes,
        write_card=write_card,
    )
    _conclude(run_evaluate(request, say=_say, progress=status), output_format)


def _check_preset(context: typer.Context, precision: str | None) -> None:
    """Refuse options that a preset decides, rather than leave them without effect."""
    decided = _OF_A_PRESET if precision else (*_OF_A_PRESET, "steps", "queries")
    given = []
    for name in decided:
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            given.append(f"--{name}")
    if given:
        raise UsageError(
            f"a preset has its own {', '.join(given)}",
            hint="leave --preset away, or what it decides",
        )


def _say(line: str) -> None:
    sys.stderr.write(f"{terminal_safe(line)}\n")
    sys.stderr.flush()


def _conclude(outcome: EvaluateOutcome, output_format: EvaluateFormat) -> None:
    card = outcome.card
    if card is None:  # of several processes the first one alone tells how it ended
        return
    if output_format is EvaluateFormat.json:
        sys.stdout.write(json_safe(card.model_dump(mode="json"), indent=2) + "\n")
    else:
        _print_text(card)
    if outcome.path is not None:
        _say(f"the card is in {outcome.path}")
    if outcome.report is not None:
        _say(f"the report is in {outcome.report}")
    if outcome.in_bundle:
        _say("the card is in the bundle")
    for check in card.checks:
        if not check.passed:
            _say(f"error: {check.name}: {check.message}")
    if not card.complete:
        _say(f"not complete: {card.incomplete_reason}")
    if outcome.interrupted:
        raise typer.Exit(130)
    if not card.complete:
        raise typer.Exit(1)


def _print_text(card: Card) -> None:
    from rich.console import Console
    from rich.table import Table

    from robustzs.cards.averages import in_words

    console = Console(file=sys.stdout, highlight=False, markup=False)
    table = Table(title=terminal_safe(card.model.name), title_justify="left")
    # Without depths every attack is on top-1, and every question, too.
    deep = any(result.depth is not None for result in card.results)
    deployed = any(result.precision for result in card.results)
    titles = ["pictures", "attack", "eps", *(["on", "asked"] if deep else [])]
    titles += ["encoders"] if deployed else []
    for title in (*titles, "n", "clean", "robust", "95%"):
        table.add_column(title, justify="right" if title in ("n", "clean", "robust") else "left")
    for result in card.results:
        table.add_row(*_row(result, deep=deep, deployed=deployed))
    if card.results:
        console.print(table)
    for average in card.averages:
        size = average.eps if average.norm == "Linf" else f"{average.norm} {average.eps}"
        console.print(
            f"average of {terminal_safe(in_words(average))}: {average.clean_accuracy:.1%} clean, "
            f"{average.robust_accuracy:.1%} under {average.attack} at {size}"
        )
    for each in card.deployed:
        low, high = each.clean_interval.low, each.clean_interval.high
        console.print(
            f"{terminal_safe(each.dataset)}, deployed in {each.precision}: "
            f"{each.clean_accuracy:.1%} ({low:.0%}-{high:.0%}) clean, "
            f"{each.n_as_measured} of {each.n} answers as in torch"
        )
    passed = sum(check.passed for check in card.checks)
    console.print(f"{passed} of {len(card.checks)} checks passed")


def _row(result: Result, *, deep: bool, deployed: bool) -> list[str]:
    low, high = result.interval.low, result.interval.high
    questions = [
        _question(result.attacked_depth, result.attacked_meaning),
        _question(result.depth, result.meaning),
    ]
    return [
        terminal_safe(result.dataset),
        result.attack,
        result.eps if result.norm == "Linf" else f"{result.norm} {result.eps}",
        *(questions if deep else []),
        *([_encoders(result)] if deployed else []),
        str(result.n),
        f"{result.clean_accuracy:.1%}",
        f"{result.robust_accuracy:.1%}",
        f"{low:.0%}-{high:.0%}",
    ]


def _encoders(result: Result) -> str:
    if result.precision is None:
        return "torch fp32"
    return f"{result.precision}, transfer only" if result.transfer_only else result.precision


def _question(depth: int | None, meaning: str) -> str:
    return "top-1" if depth is None else f"{meaning} {depth}"
