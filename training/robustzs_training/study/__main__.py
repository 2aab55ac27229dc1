"""``python -m robustzs_training.study``: rows, run, report."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from robustzs.cli.progress import status
from robustzs.errors import RobustZSError
from robustzs_training.study.measure import Pictures
from robustzs_training.study.protocol import Protocol
from robustzs_training.study.rows import START, all_rows, row_names, title_of
from robustzs_training.study.runner import Study, run_rows
from robustzs_training.study.start import MODEL

app = typer.Typer(add_completion=False, no_args_is_help=True, help=__doc__)


@app.command()
def rows(
    names: Annotated[bool, typer.Option("--names", help="Nothing but names.")] = False,
) -> None:
    """List the rows."""
    if names:
        typer.echo(" ".join(row_names()))
        return
    typer.echo(f"{START:22}{title_of(START)}: measured alone")
    for row in all_rows():
        typer.echo(f"{row.name:22}{row.title}: {row.why}")


@app.command()
def run(
    data: Annotated[Path, typer.Option(help="Pictures, by robustzs_training.study.data.")],
    photographs: Annotated[
        Path, typer.Option(help="data.csv, by benchmarks.heldout_photos.export.")
    ],
    output: Annotated[Path, typer.Option(help="Folder for models and results.")],
    row: Annotated[list[str] | None, typer.Argument(help="Names; without any, all rows.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the training.")] = 0,
    steps: Annotated[int | None, typer.Option(min=1, help="Instead of the rows' own.")] = None,
    size: Annotated[int, typer.Option(help="Pixels a side of what is measured.")] = 128,
    n: Annotated[int, typer.Option(min=1, help="Most pictures of a set.")] = 200,
    n_photographs: Annotated[int, typer.Option(min=1, help="Most photographs.")] = 200,
    attack_steps: Annotated[int, typer.Option(min=1, help="Iterations of attacks.")] = 20,
    depths: Annotated[str, typer.Option(help="Of superclass attacks.")] = "4,8",
    full: Annotated[bool, typer.Option(help="The full AutoAttack alone: for leaders.")] = False,
    change: Annotated[
        list[str] | None, typer.Option("--set", "-s", help="KEY=VALUE of every recipe.")
    ] = None,
    model: Annotated[str, typer.Option(help="The start model.")] = MODEL,
    fresh: Annotated[bool, typer.Option(help="Start these rows over.")] = False,
) -> None:
    """Train and measure rows; the same command goes on where it was stopped."""
    changes = [] if steps is None else [f"schedule.steps={steps}"]
    try:
        study = Study(
            pictures=Pictures(data=data.resolve(), photographs=photographs.resolve()),
            output=output,
            protocol=Protocol(
                image_size=size,
                n_images=n,
                n_photographs=n_photographs,
                n_steps=attack_steps,
                depths=tuple(int(depth) for depth in depths.split(",") if depth.strip()),
                full=full,
            ),
            seed=seed,
            changes=(*changes, *(change or ())),
            model=model,
            resume=not fresh,
        )
        with _stoppable():
            run_rows(study, row or row_names(), say=_say, progress=status)
    except RobustZSError as error:
        _fail(error)
    except KeyboardInterrupt:
        typer.echo("stopped; the same command goes on from here", err=True)
        raise typer.Exit(130) from None


@app.command()
def report(
    output: Annotated[Path, typer.Option(help="Folder of `run`.")],
    docs: Annotated[Path, typer.Option(help="Folder of README.md and plots.")],
    page: Annotated[str, typer.Option(help="The page with the markers.")] = "README.md",
) -> None:
    """Write tables between the page's markers, and plots beside it."""
    from robustzs_training.study.report import write_report

    try:
        written = write_report(output, docs, page=page)
    except RobustZSError as error:
        _fail(error)
    for path in written:
        typer.echo(str(path))


def _fail(error: RobustZSError) -> None:
    typer.echo(f"error: {error}", err=True)
    raise typer.Exit(1) from error


def _say(line: str) -> None:
    typer.echo(f"{time.strftime('%H:%M:%S')} {line}")


@contextmanager
def _stoppable() -> Iterator[None]:
    """SIGTERM ends a run as Ctrl-C does: with what it has."""

    def stop(number: int, frame: FrameType | None) -> None:
        del number, frame
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


if __name__ == "__main__":
    app()
