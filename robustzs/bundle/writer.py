"""Writing a bundle: complete and proven, or not there at all.

Files go into a hidden folder beside the target, are flushed to the disk and hashed; the finished
folder is read back as any reader would and takes the target's place in one rename.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from pydantic import ValidationError

from robustzs._version import __version__
from robustzs.bundle.manifest import MANIFEST_NAME, SCHEMA_VERSION, BundleManifest
from robustzs.bundle.names import check_file_name, locate
from robustzs.bundle.store import Bundle, describe_problems, file_sha256
from robustzs.errors import (
    BundleExistsError,
    BundleManifestError,
    BundlePathError,
    BundleWriteError,
)

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


class BundleWriter:
    """Builds one bundle; a context manager.

    ```python
    with BundleWriter(Path("out/my-model")) as writer:
        writer.add_file("tokenizer.json", Path("tokenizer.json"))
        torch.onnx.export(..., writer.path_for("image_encoder.onnx"))
        bundle = writer.finish({"name": "my-model", ...})
    ```

    Leaving the block without ``finish``, by an exception or not, removes everything. The same
    input gives the same bundle digest: nothing of the time or the place is recorded.

    Args:
        target: The folder to make. Its parents are made, too.
        overwrite: Replace an existing bundle. The old one stays until the new one is complete; a
            folder that is not a bundle is never replaced.

    Raises:
        BundleExistsError: the target already holds something.
        BundleWriteError: the folder beside it cannot be made.
    """

    def __init__(self, target: Path | str, *, overwrite: bool = False) -> None:
        self.target = Path(os.path.abspath(target))
        self._overwrite = overwrite
        self._folder: Path | None = None

    def __enter__(self) -> BundleWriter:
        self._check_target()
        with _write_errors(self.target):
            self.target.parent.mkdir(parents=True, exist_ok=True)
            self._folder = Path(
                tempfile.mkdtemp(prefix=f".{self.target.name}.partial-", dir=self.target.parent)
            )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def path_for(self, name: str) -> Path:
        """Where to write the file ``name`` oneself; ``finish`` records whatever is there.

        Raises:
            BundlePathError: the name is not allowed.
        """
        if check_file_name(name).casefold() == MANIFEST_NAME:
            raise BundlePathError(f"{name!r} is written by finish() alone")
        path = self._open_folder().joinpath(*name.split("/"))
        with _write_errors(self.target):
            path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def add_file(self, name: str, source: Path | bytes) -> None:
        """Copy a file, or write bytes, under ``name``.

        Raises:
            BundlePathError: the name is not allowed or already taken.
            BundleWriteError: reading the source or writing failed.
        """
        path = self.path_for(name)
        with _write_errors(self.target):
            try:
                with path.open("xb") as stream:
                    if isinstance(source, bytes):
                        stream.write(source)
                    else:
                        with source.open("rb") as origin:
                            shutil.copyfileobj(origin, stream, 1 << 20)
            except FileExistsError:
                raise BundlePathError(f"{name!r} was already added to the bundle") from None

    def finish(self, fields: Mapping[str, Any] | BundleManifest) -> Bundle:
        """Record every file, prove the bundle by loading it, and put it into its place.

        Args:
            fields: The manifest without ``files``, ``schema_version`` and ``created_with``, which
                are filled in here; or a manifest, whose ``files`` are replaced.

        Returns:
            The bundle, loaded from the target.

        Raises:
            BundleManifestError: the fields violate the schema; every problem is listed.
            BundleExistsError: somebody else made the target meanwhile.
            BundleWriteError: the disk is full or refuses; nothing was left behind.
            BundleError: the written bundle does not pass the checks of ``Bundle.load``.
        """
        folder = self._open_folder()
        if isinstance(fields, BundleManifest):
            fields = fields.model_dump(mode="json")
        with _write_errors(self.target):
            records = self._record_files(folder)
            text = _manifest_text(fields, records)
            (folder / MANIFEST_NAME).write_text(text, encoding="utf-8", newline="\n")
            settle(folder)
        Bundle.load(folder)
        with _write_errors(self.target):
            self._put_in_place(folder)
        return Bundle.load(self.target, verify=False)

    def _check_target(self) -> None:
        target = self.target
        if target.is_symlink() or (target.exists() and not target.is_dir()):
            raise BundleExistsError(
                f"{target} exists and is not a folder", hint="name a new folder"
            )
        if not target.is_dir() or not any(target.iterdir()):
            return
        if not self._overwrite:
            raise BundleExistsError(
                f"{target} already holds something",
                hint="name a new folder, or allow overwriting",
            )
        if not (target / MANIFEST_NAME).is_file():
            raise BundleExistsError(
                f"{target} holds something that is not a bundle; it will not be replaced",
                hint="name a new folder",
            )

    def _open_folder(self) -> Path:
        if self._folder is None:
            raise BundleWriteError("the bundle writer is not open", hint="use it in a with block")
        return self._folder

    def _record_files(self, folder: Path) -> dict[str, dict[str, Any]]:
        names = sorted(
            path.relative_to(folder).as_posix()
            for path in folder.rglob("*")
            if path.is_symlink() or not path.is_dir()
        )
        records: dict[str, dict[str, Any]] = {}
        for name in names:
            path = locate(folder, name)
            records[name] = {"sha256": file_sha256(path), "size": path.lstat().st_size}
        return records

    def _put_in_place(self, folder: Path) -> None:
        self._check_target()
        replaced = self.target.is_dir() and any(self.target.iterdir())
        try:
            if replaced:
                exchange(folder, self.target)
            else:
                os.rename(folder, self.target)
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                raise BundleExistsError(
                    f"{self.target} was made by somebody else meanwhile",
                    hint="name a new folder",
                ) from error
            raise
        if replaced:
            shutil.rmtree(folder, ignore_errors=True)
        self._folder = None
        _sync_folder(self.target.parent)


def _manifest_text(fields: Mapping[str, Any], records: Mapping[str, Any]) -> str:
    document = {
        "created_with": __version__,
        **fields,
        "schema_version": SCHEMA_VERSION,
        "files": dict(records),
    }
    try:
        manifest = BundleManifest.model_validate(document)
    except ValidationError as error:
        raise BundleManifestError(
            f"the bundle's record is not valid: {describe_problems(error)}",
            hint="docs/bundle.md lists every field",
        ) from error
    content = manifest.model_dump(mode="json")
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def settle(folder: Path) -> None:
    """Flush every file and folder to the disk and make them readable as usual."""
    for base, _, names in os.walk(folder, topdown=False):
        for name in names:
            path = Path(base, name)
            path.chmod(0o644)
            with path.open("rb") as stream:
                os.fsync(stream.fileno())
        Path(base).chmod(0o755)
        _sync_folder(Path(base))


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def exchange(new: Path, old: Path) -> None:
    """Swap two folders: at once where Linux can, else by renames with a way back."""
    if _exchange_at_once(new, old):
        return
    aside = Path(tempfile.mkdtemp(prefix=f".{old.name}.partial-", dir=old.parent))
    os.rename(old, aside / "old")
    try:
        os.rename(new, old)
    except BaseException:
        os.rename(aside / "old", old)
        aside.rmdir()
        raise
    os.rename(aside / "old", new)
    aside.rmdir()


def _exchange_at_once(new: Path, old: Path) -> bool:
    """Linux's ``renameat2``: at every moment there is a whole bundle. False where it is unknown."""
    if sys.platform != "linux":
        return False
    rename = getattr(ctypes.CDLL(None), "renameat2", None)
    names = os.fsencode(new), os.fsencode(old)
    return rename is not None and (
        rename(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE) == 0
    )


@contextmanager
def _write_errors(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        raise BundleWriteError(
            f"the bundle {target} could not be written: {error.strerror or error}{where}",
            hint="nothing was left behind; see to free space and permissions, then try again",
        ) from error
