"""``python -m robustzs_training.study.data --output DIR``: makes the study's pictures."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Annotated

import typer

from robustzs.errors import RobustZSError
from robustzs_training.study.data.build import Settings, build


def default_cache() -> Path:
    """Where packages are unpacked that are not installed, of this and other collections."""
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "robustzs" / "study-packages"


def main(
    output: Annotated[Path, typer.Option(help="Folder to fill.")],
    cache: Annotated[
        Path | None, typer.Option(help="Folder for packages that are not installed.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of grounds, places and sizes.")] = 0,
    per_concept: Annotated[int, typer.Option(help="Training pictures of a concept.")] = 20,
    jobs: Annotated[int, typer.Option(help="Processes.", min=1)] = 1,
) -> None:
    """Fetches packages, renders drawings, and writes pictures, captions and the data card."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        record = build(
            output,
            cache=cache or default_cache(),
            settings=Settings(seed=seed, per_concept=per_concept),
            jobs=jobs,
        )
    except RobustZSError as error:
        typer.echo(f"{error}", err=True)
        raise typer.Exit(1) from error
    typer.echo(f"{output}: {record['seconds']:.0f} s, digest {record['digest'][:16]}")


if __name__ == "__main__":
    typer.run(main)
