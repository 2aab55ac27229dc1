"""Brings the packages of the held-out pictures into the cache folder; running it again is free.

The pictures are not copied into this repository: they come from Debian's archive
(``apt-get download``, which needs no root) and from PyPI (``pip download``), the way the
machine is set up to reach them.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.heldout_photos.cache import (
    DEBIAN_PACKAGES,
    SCIKIT_IMAGE,
    SCIKIT_IMAGE_VERSION,
    HeldoutError,
    cache_root,
    package_folder,
)


def fetch(cache: Path | None = None) -> Path:
    """Downloads and unpacks what is not there yet.

    Returns:
        The cache folder.

    Raises:
        HeldoutError: a package cannot be downloaded or unpacked.
    """
    for package in DEBIAN_PACKAGES:
        if not package_folder(package, cache).is_dir():
            _install(package_folder(package, cache), partial(_debian, package))
    if not package_folder(SCIKIT_IMAGE, cache).is_dir():
        _install(package_folder(SCIKIT_IMAGE, cache), _scikit_image)
    return cache_root(cache)


def _install(target: Path, unpack: Callable[[Path], None]) -> None:
    """Lets ``unpack`` fill a new folder and moves it into place only when it is whole."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".new-") as scratch:
        content = Path(scratch) / "content"
        content.mkdir()
        unpack(content)
        try:
            content.rename(target)
        except OSError:
            if not target.is_dir():  # else another process was faster, with the same result
                raise


def _debian(package: str, into: Path) -> None:
    for tool in ("apt-get", "dpkg-deb"):
        if shutil.which(tool) is None:
            raise HeldoutError(f"{package}: {tool} is not here; use a Debian machine or container")
    with tempfile.TemporaryDirectory(dir=into.parent) as downloads:
        _run(
            ["apt-get", "download", "-qq", package],
            Path(downloads),
            f"{package}: apt-get cannot download it; run 'apt-get update' as root first",
        )
        [archive] = Path(downloads).glob("*.deb")
        _run(["dpkg-deb", "-x", str(archive), str(into)], into, f"{package}: cannot be unpacked")


def _scikit_image(into: Path) -> None:
    """Unpacks only the pictures of the wheel; that of any interpreter will do."""
    wanted = f"{SCIKIT_IMAGE}=={SCIKIT_IMAGE_VERSION}"
    with tempfile.TemporaryDirectory(dir=into.parent) as downloads:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest=."]
        _run(
            [*pip, "--only-binary=:all:", "--python-version=3.11", wanted],
            Path(downloads),
            f"{wanted}: pip cannot download it",
        )
        [wheel] = Path(downloads).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            data = [name for name in archive.namelist() if name.startswith("skimage/data/")]
            archive.extractall(into, data)


def _run(command: list[str], folder: Path, problem: str) -> None:
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise HeldoutError(f"{problem}\n{result.stderr.strip()[-2000:]}")


def main(
    cache: Annotated[
        Path | None, typer.Option(help="Folder to fill; default: $ROBUSTZS_HELDOUT.")
    ] = None,
) -> None:
    """Fetches the packages of the held-out pictures (about 180 MB, once)."""
    try:
        folder = fetch(cache)
    except HeldoutError as error:
        typer.echo(error, err=True)
        raise typer.Exit(1) from error
    typer.echo(folder)


if __name__ == "__main__":
    typer.run(main)
