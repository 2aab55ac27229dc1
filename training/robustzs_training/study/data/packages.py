"""The packages that the pictures come from: found on this machine, or downloaded and unpacked.

No package needs to be installed: ``apt-get download`` needs no root, and what it brings is unpacked
into a folder of the cache. Nothing of a package is run.
"""

from __future__ import annotations

import gzip
import hashlib
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from robustzs.errors import DatasetNotFoundError

_VERSION = re.compile(r"^\S+ \(([^)]+)\)")


@dataclass(frozen=True, kw_only=True)
class Package:
    """A Debian package with pictures.

    Attributes:
        name: Debian's.
        holds: A path in it that shows that it is there; below ``/`` or where it is unpacked.
        licence: Of what is used, as its ``copyright`` file has it.
        gives: What is taken from it.
    """

    name: str
    holds: str
    licence: str
    gives: str


PACKAGES = (
    Package(
        name="openclipart-svg",
        holds="usr/share/openclipart/svg",
        licence="public domain",
        gives="drawings with titles and keywords",
    ),
    Package(
        name="fonts-noto-color-emoji",
        holds="usr/share/fonts/truetype/noto/NotoColorEmoji.ttf",
        licence="OFL-1.1",
        gives="emoji, one drawing of each",
    ),
    Package(
        name="ruby-gemojione",
        holds="usr/share/rubygems-integration/all/gems/gemojione-3.3.0/assets/svg",
        licence="CC BY-SA 4.0",
        gives="emoji, one drawing of each",
    ),
    Package(
        name="sweethome3d",
        holds="usr/share/sweethome3d/sweethome3d.jar",
        licence="GPL-2+",
        gives="views of furniture; photographed surfaces",
    ),
    Package(
        name="sweethome3d-furniture",
        holds="usr/share/sweethome3d/furniture",
        licence="CC BY 3.0, CC0",
        gives="views of furniture, vehicles, plants, food, household things",
    ),
    Package(
        name="kalzium-data",
        holds="usr/share/kalzium/data/toolpics",
        licence="GPL-2+",
        gives="photographs of laboratory equipment",
    ),
    Package(
        name="palapeli-data",
        holds="usr/share/palapeli/collection",
        licence="GPL-2+ and CC, see its copyright file",
        gives="photographs",
    ),
    Package(
        name="lomiri-wallpapers-16.04",
        holds="usr/share/backgrounds/life_by_Aitzol_Berasategi.jpg",
        licence="CC BY-SA, see its copyright file",
        gives="photographs",
    ),
    Package(
        name="lomiri-wallpapers-20.04",
        holds="usr/share/backgrounds/Kleiber_by_Lukas_Baubkus.jpg",
        licence="CC BY-SA, see its copyright file",
        gives="photographs",
    ),
    Package(
        name="plasma-workspace-wallpapers",
        holds="usr/share/wallpapers/BytheWater",
        licence="LGPL-3, CC BY-SA 4.0",
        gives="photographs and paintings as grounds",
    ),
    Package(
        name="gnome-backgrounds",
        holds="usr/share/backgrounds/gnome",
        licence="CC BY-SA 3.0",
        gives="surfaces as grounds",
    ),
    Package(
        name="mate-backgrounds",
        holds="usr/share/backgrounds/mate",
        licence="CC BY-SA 4.0, see its copyright file",
        gives="photographs",
    ),
    Package(
        name="ukui-wallpapers",
        holds="usr/share/backgrounds/calla.png",
        licence="CC BY-SA, see its copyright file",
        gives="abstract grounds",
    ),
)


@dataclass(frozen=True)
class Packages:
    """Where each package lies.

    Attributes:
        roots: Package name -> ``/``, or the folder that it is unpacked into.
    """

    roots: dict[str, Path]

    def path(self, package: str, below: str) -> Path:
        """A path of a package on this machine."""
        return self.roots[package] / below

    def version(self, package: str) -> str:
        """From its changelog; ``unknown`` where documentation is left out."""
        folder = self.roots[package] / "usr/share/doc" / package
        for path in (folder / "changelog.Debian.gz", folder / "changelog.gz"):
            try:
                with gzip.open(path, "rt", encoding="utf-8", errors="replace") as lines:
                    found = _VERSION.match(next(iter(lines), ""))
            except OSError:
                continue
            if found:
                return found[1]
        return "unknown"


def find_packages(cache: Path, packages: Iterable[Package] = PACKAGES) -> Packages:
    """Find every package, and download those that are neither installed nor in the cache.

    Args:
        cache: Folder that holds, or gets, ``NAME/usr/...`` for packages that are not installed.
        packages: Which ones.

    Raises:
        DatasetNotFoundError: A package cannot be had.
    """
    roots = {}
    for package in packages:
        unpacked = cache / package.name
        if not (unpacked / package.holds).exists() and (Path("/") / package.holds).exists():
            roots[package.name] = Path("/")
            continue
        if not (unpacked / package.holds).exists():
            _download(package, unpacked)
        roots[package.name] = unpacked
    return Packages(roots)


def digest_of(paths: Iterable[Path]) -> str:
    """Sha256 over the contents of files, in the order given."""
    total = hashlib.sha256()
    for path in paths:
        content = hashlib.sha256(path.read_bytes()).digest()
        total.update(path.name.encode() + b"\0" + content)
    return total.hexdigest()


def _download(package: Package, target: Path) -> None:
    for tool in ("apt-get", "dpkg-deb"):
        if shutil.which(tool) is None:
            raise DatasetNotFoundError(
                f"{package.name} cannot be downloaded: {tool} is not here",
                hint=f"use a Debian machine or container, or unpack it into {str(target)!r}",
            )
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".new-") as scratch:
        folder = Path(scratch)
        _run(["apt-get", "download", "-qq", package.name], folder, package.name)
        [archive] = folder.glob("*.deb")
        _run(["dpkg-deb", "-x", str(archive), "content"], folder, package.name)
        if not (folder / "content" / package.holds).exists():
            raise DatasetNotFoundError(
                f"this release of {package.name} has no {package.holds!r}",
                hint="the pictures were chosen from Debian 12's",
            )
        shutil.rmtree(target, ignore_errors=True)
        (folder / "content").rename(target)


def _run(command: list[str], folder: Path, name: str) -> None:
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise DatasetNotFoundError(
            f"{name} cannot be had: {result.stderr.strip()[-300:]}",
            hint="run 'apt-get update' as root first",
        )
