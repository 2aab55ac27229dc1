"""Reading a bundle: every file is proven to be the recorded one before anything opens it.

The order of the checks is the order in which a reader can trust what it sees: the size of
``bundle.json``, its JSON, its schema version, file names, the rest of the schema, the expected
digest, then each file's existence, kind, size and sha256, and last the content of each ONNX file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from robustzs.bundle.manifest import MANIFEST_NAME, MAX_FILES, SCHEMA_VERSION, BundleManifest
from robustzs.bundle.names import check_file_name, locate, open_regular
from robustzs.bundle.onnx_guard import check_onnx
from robustzs.errors import (
    BundleDigestError,
    BundleFileMissingError,
    BundleManifestError,
    BundleOriginError,
    BundlePathError,
    BundleSchemaVersionError,
    BundleTruncatedError,
    UsageError,
)

MAX_MANIFEST_BYTES = 1_000_000
_CARD_NAME = "card.json"
_MAX_CARD_BYTES = 64_000_000  # with every depth attacked, and 50,000 pictures
_CHUNK = 1 << 20


class Bundle:
    """A bundle on disk whose record was checked; made by ``Bundle.load``.

    Attributes:
        path: The folder.
        manifest: What ``bundle.json`` says.
        digest: sha256 of the canonical ``bundle.json``. It covers every file, since the record
            holds their digests. It proves wholeness; origin needs ``expect_digest`` or a signature.
    """

    def __init__(self, path: Path, manifest: BundleManifest, digest: str) -> None:
        self.path = path
        self.manifest = manifest
        self.digest = digest

    def __repr__(self) -> str:
        return (
            f"Bundle({self.manifest.name!r}, digest={self.digest[:12]!r}, path={str(self.path)!r})"
        )

    @classmethod
    def load(
        cls, path: Path | str, *, expect_digest: str | None = None, verify: bool = True
    ) -> Bundle:
        """Read and check the bundle in a folder.

        Args:
            path: The folder.
            expect_digest: The digest that the bundle must have, with or without ``sha256:``.
            verify: Hash every file. Without it names, kinds, sizes and ONNX graphs are still
                checked: enough for a listing, not for loading a model.

        Raises:
            BundleManifestError: ``bundle.json`` is missing, is not JSON or violates the schema.
            BundleSchemaVersionError: a newer robustzs wrote it.
            BundlePathError: a file name is absolute, has ``..``, or is a link.
            BundleOriginError: its digest is not ``expect_digest``.
            BundleFileMissingError: a recorded file is not there.
            BundleTruncatedError: a file is shorter or longer than its record.
            BundleDigestError: a file's content differs from its record.
            OnnxGraphError: an ONNX file reaches outside, needs custom code or is damaged.
        """
        root = Path(path)
        document = _read_manifest(root)
        manifest = parse_manifest(document)
        digest = manifest_digest(document)
        if expect_digest is not None:
            _check_origin(digest, expect_digest, manifest.name)
        bundle = cls(root, manifest, digest)
        bundle._check_files(verify=verify)
        return bundle

    def file(self, name: str) -> Path:
        """The path of a recorded file.

        Raises:
            BundleFileMissingError: the record has no such file.
        """
        if name not in self.manifest.files:
            raise BundleFileMissingError(
                f"the bundle {self.manifest.name} has no file {name!r}",
                hint=f"it has {', '.join(sorted(self.manifest.files))}",
            )
        return self.path.joinpath(*name.split("/"))

    def card(self) -> dict[str, Any] | None:
        """The robustness card, or ``None`` when the bundle has none.

        Raises:
            BundleManifestError: ``card.json`` is not a JSON object.
        """
        if _CARD_NAME not in self.manifest.files:
            return None
        return read_json_object(self.file(_CARD_NAME), _CARD_NAME, _MAX_CARD_BYTES)

    @property
    def size(self) -> int:
        """Bytes of all recorded files."""
        return sum(record.size for record in self.manifest.files.values())

    def _check_files(self, *, verify: bool) -> None:
        sizes = {name: record.size for name, record in self.manifest.files.items()}
        for name, record in sorted(self.manifest.files.items()):
            path = locate(self.path, name)
            size = path.lstat().st_size
            if size != record.size:
                compared = "shorter" if size < record.size else "longer"
                raise BundleTruncatedError(
                    f"{name} in the bundle {self.path} has {size} bytes, "
                    f"{compared} than the recorded {record.size}",
                    hint="copy or export the bundle again",
                )
            if verify:
                found = file_sha256(path)
                if found != record.sha256:
                    raise BundleDigestError(
                        f"{name} in the bundle {self.path} was changed: its sha256 is {found}, "
                        f"recorded is {record.sha256}",
                        hint="copy or export the bundle again",
                    )
        # The engine opens what the record calls an encoder, whatever its name ends in.
        encoders = {*self.manifest.image_encoders.values(), *self.manifest.text_encoders.values()}
        for name in sorted(sizes):
            if name in encoders or name.lower().endswith(".onnx"):
                check_onnx(locate(self.path, name), sizes, name=name)


def parse_manifest(document: Mapping[str, Any]) -> BundleManifest:
    """Check a decoded ``bundle.json`` against schema version, name rules and schema, in this order.

    Raises:
        BundleSchemaVersionError: a newer robustzs wrote it.
        BundlePathError: a file name is not allowed.
        BundleManifestError: anything else; every problem is listed.
    """
    version = document.get("schema_version")
    if isinstance(version, bool) or not isinstance(version, int) or version < 1:
        raise BundleManifestError(
            f"{MANIFEST_NAME} has the schema_version {version!r}, not a positive whole number",
            hint="is it the bundle.json of a robustzs bundle?",
        )
    if version > SCHEMA_VERSION:
        raise BundleSchemaVersionError(
            f"the bundle has schema version {version}; "
            f"this robustzs reads versions up to {SCHEMA_VERSION}",
            hint="upgrade robustzs to read it",
        )
    files = document.get("files")
    if isinstance(files, dict):
        _check_names(files)
    try:
        return BundleManifest.model_validate(dict(document))
    except ValidationError as error:
        raise BundleManifestError(
            f"{MANIFEST_NAME} is not valid: {describe_problems(error)}",
            hint="docs/bundle.md lists every field",
        ) from error


def describe_problems(error: ValidationError, limit: int = 20) -> str:
    """The problems of a validation in one line: ``field.part: what is wrong; ...``."""
    lines = []
    for problem in error.errors(include_url=False, include_input=False, include_context=False):
        where = ".".join(str(part)[:80] for part in problem["loc"])
        what = problem["msg"].removeprefix("Value error, ")
        lines.append(f"{where}: {what}" if where else what)
    more = [f"and {len(lines) - limit} more"] if len(lines) > limit else []
    return "; ".join(lines[:limit] + more)


def canonical_json(document: Mapping[str, Any]) -> bytes:
    """The one byte form of a JSON document: sorted keys, no white space, UTF-8."""
    return json.dumps(
        document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode("utf-8", "surrogatepass")


def manifest_digest(document: Mapping[str, Any]) -> str:
    """The bundle's digest, from ``bundle.json`` as written: later defaults do not change it."""
    return hashlib.sha256(canonical_json(document)).hexdigest()


def file_sha256(path: Path) -> str:
    """sha256 of a regular file, read in pieces.

    Raises:
        BundleFileMissingError: it cannot be read.
    """
    digest = hashlib.sha256()
    buffer = bytearray(_CHUNK)
    view = memoryview(buffer)
    try:
        with open_regular(path) as stream:
            while count := stream.readinto(buffer):  # type: ignore[attr-defined]
                digest.update(view[:count])
    except OSError as error:
        raise BundleFileMissingError(f"{path} cannot be read: {error.strerror}") from error
    return digest.hexdigest()


def read_json_object(path: Path, name: str, max_bytes: int) -> dict[str, Any]:
    """Read a JSON object from a file nobody vouches for: size, nesting and keys are limited.

    Raises:
        BundleManifestError: too large, not UTF-8, not JSON, not an object, or a key given twice.
    """
    try:
        with open_regular(path) as stream:
            data = bytearray()
            while len(data) <= max_bytes and (piece := stream.read(max_bytes + 1 - len(data))):
                data += piece
    except OSError as error:
        raise BundleManifestError(f"{path} cannot be read: {error.strerror}") from error
    if len(data) > max_bytes:
        raise BundleManifestError(f"{name} in {path.parent} is larger than {max_bytes} bytes")
    try:
        document = json.loads(
            bytes(data).decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant
        )
        canonical_json({"": document})
    except (ValueError, RecursionError) as error:
        problem = "nested too deep" if isinstance(error, RecursionError) else str(error)
        raise BundleManifestError(
            f"{name} in {path.parent} is not JSON: {problem}",
            hint="copy or export the bundle again",
        ) from error
    if not isinstance(document, dict):
        raise BundleManifestError(f"{name} in {path.parent} is not a JSON object")
    return document


def _read_manifest(root: Path) -> dict[str, Any]:
    path = root / MANIFEST_NAME
    if not root.is_dir():
        raise BundleManifestError(f"{root} is not a folder", hint="a bundle is a folder")
    try:
        locate(root, MANIFEST_NAME)
    except BundleFileMissingError as error:
        raise BundleManifestError(
            f"{root} is not a bundle: it has no readable {MANIFEST_NAME}",
            hint="a bundle is a folder that `robustzs export` made",
        ) from error
    return read_json_object(path, MANIFEST_NAME, MAX_MANIFEST_BYTES)


def _check_names(files: Mapping[str, Any]) -> None:
    if len(files) > MAX_FILES:
        raise BundleManifestError(f"{MANIFEST_NAME} records {len(files)} files, over {MAX_FILES}")
    seen: dict[str, str] = {}
    for name in files:
        check_file_name(name)
        folded = name.casefold()
        if folded == MANIFEST_NAME or folded in seen:
            other = seen.get(folded, MANIFEST_NAME)
            raise BundlePathError(
                f"the file name {name!r} in the bundle is that of {other!r}",
                hint="names must differ by more than upper and lower case",
            )
        seen[folded] = name


def checked_digest(text: str) -> str:
    """A bundle's digest as people write it: in any case, perhaps after ``sha256:``.

    Raises:
        UsageError: it is no sha256.
    """
    digest = text.strip().lower().removeprefix("sha256:")
    if len(digest) != 64 or set(digest) - set("0123456789abcdef"):
        raise UsageError(
            f"the expected digest {text!r} is not a sha256",
            hint="it has 64 hexadecimal digits, as `robustzs models show` prints them",
        )
    return digest


def _check_origin(digest: str, expected: str, name: str) -> None:
    wanted = checked_digest(expected)
    if wanted != digest:
        raise BundleOriginError(
            f"the bundle {name} has the digest {digest}, not the expected {wanted}",
            hint="it is another bundle than the one that you named; get it from its source again",
        )


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice[:80]!r} is given twice")
    return document


def _no_constant(text: str) -> float:
    raise ValueError(f"{text} is not a JSON number")
