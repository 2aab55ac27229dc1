"""Writes the held-out pictures and a table ``data.csv``, for ``robustzs evaluate --data``.

The labels are synsets: each picture is asked among the 1000 classes of ImageNet and is right by the
rule of README.md, which ``robustzs evaluate`` applies itself. Photographs that no class can be
right for are written, too, and are counted by it and left out.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.heldout_photos.cache import HeldoutError
from benchmarks.heldout_photos.fetch import fetch
from benchmarks.heldout_photos.photos import Kind, Photo, load_photos

TABLE = "data.csv"


def export(output: Path, photos: list[Photo]) -> Path:
    """Write pictures as they are in their packages, and the table.

    Args:
        output: Made where it is not there; files in it are written over.
        photos: From :func:`load_photos`.

    Returns:
        The table.

    Raises:
        HeldoutError: ``output`` cannot be written.
    """
    try:
        output.mkdir(parents=True, exist_ok=True)
        for photo in photos:
            path = output / file_name(photo)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(photo.data)
        table = output / TABLE
        with table.open("w", encoding="utf-8", newline="") as lines:
            writer = csv.writer(lines)
            writer.writerow(("path", "label"))
            writer.writerows((file_name(photo), photo.synset) for photo in photos)
    except OSError as error:
        raise HeldoutError(f"{output}: cannot be written: {error}") from error
    return table


def file_name(photo: Photo) -> str:
    """Below the folder: source and path, without what makes one a file inside a file."""
    return photo.id.replace(".rcc/", "/")


def main(
    output: Annotated[Path, typer.Option(help="Folder for pictures and data.csv.")],
    kind: Annotated[str, typer.Option(help="photo, drawing or all.")] = "photo",
    scorable: Annotated[
        bool, typer.Option(help="Only those that a class of ImageNet can be right for.")
    ] = False,
    cache: Annotated[Path | None, typer.Option(help="Cache folder.")] = None,
) -> None:
    """Writes pictures and data.csv."""
    kinds: dict[str, Kind | None] = {"photo": "photo", "drawing": "drawing", "all": None}
    if kind not in kinds:
        typer.echo(f"--kind {kind!r}: photo, drawing or all", err=True)
        raise typer.Exit(2)
    try:
        fetch(cache)
        photos = load_photos(kind=kinds[kind], scorable=True if scorable else None, cache=cache)
        table = export(output, photos)
    except HeldoutError as error:
        typer.echo(error, err=True)
        raise typer.Exit(1) from error
    typer.echo(f"{len(photos)} pictures: {table}")


if __name__ == "__main__":
    typer.run(main)
