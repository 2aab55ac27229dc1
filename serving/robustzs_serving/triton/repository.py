"""A bundle as a Triton model repository."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from robustzs.backends.triton import contract
from robustzs.backends.triton.contract import Tower
from robustzs.bundle.manifest import Precision
from robustzs.bundle.onnx_guard import check_onnx
from robustzs.bundle.store import Bundle
from robustzs.bundle.writer import exchange, settle
from robustzs.errors import BundleExistsError, BundleWriteError, ExportError, UsageError
from robustzs_serving.triton.config import (
    SCALE_VERSION,
    ServerOptions,
    encoder_config,
    ensemble_config,
    scale_config,
)
from robustzs_serving.triton.scale import scale_model

MAX_OPSET = 21
"""Of ONNX Runtime 1.18 and later, that is of Triton's images from 24.06 on; 18 is older still."""
MAX_IR_VERSION = 10
"""Of the same: a newer form of file is refused whatever its operators are."""


def write_repository(
    bundle: Bundle,
    target: Path,
    *,
    options: ServerOptions | None = None,
    image_precision: Precision | None = None,
    text_precision: Precision | None = None,
    force: bool = False,
) -> list[Path]:
    """Write the models of a bundle into a repository, beside those that are there already.

    All models are complete before the first is put into its place by a rename, so that a server
    which polls the folder never loads half a file.

    Args:
        bundle: verified.
        target: the repository; made where it is not there.
        options: of the server.
        image_precision: variant of the image encoder; by default the bundle's choice.
        text_precision: variant of the text encoder; by default the bundle's choice.
        force: replace models of the same names.

    Returns:
        The folders of the models.

    Raises:
        MissingExtraError: tritonclient is not installed, whose protobuf this needs.
        UsageError: an option, or a precision that the bundle does not have.
        ExportError: an encoder needs a newer ONNX Runtime than released Triton images have.
        BundleExistsError: a model of that name is there.
        BundleWriteError: the folder cannot be written; nothing was left behind.
    """
    options = options or ServerOptions()
    target = Path(os.path.abspath(target))
    files = {
        tower: _variant(bundle, tower, precision)
        for tower, precision in _asked(image_precision, text_precision)
    }
    for _, name in files.values():
        _check_opset(bundle, name)
    configs = _configs(bundle, options, files)
    _check_target(target, configs, force=force)
    with _write_errors(target):
        fresh = not target.exists()
        place = _staging_place(target)
        place.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{target.name}.partial-", dir=place))
        try:
            _fill(staging, bundle, configs, files)
            settle(staging)
            _put_in_place(staging, target, list(configs), fresh=fresh)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    return [target / name for name in configs]


def _asked(
    image: Precision | None, text: Precision | None
) -> tuple[tuple[Tower, Precision | None], ...]:
    return ("image", image), ("text", text)


def _variant(bundle: Bundle, tower: Tower, asked: Precision | None) -> tuple[Precision, str]:
    manifest = bundle.manifest
    defaults: dict[Tower, Precision] = {
        "image": manifest.default_image_precision,
        "text": manifest.default_text_precision,
    }
    precision = asked or defaults[tower]
    files = contract.encoders(manifest, tower)
    if precision not in files:
        raise UsageError(
            f"this bundle has no {tower} encoder of precision {precision!r}",
            hint=f"it has {', '.join(sorted(files))}",
        )
    return precision, files[precision]


def _check_opset(bundle: Bundle, name: str) -> None:
    sizes = {file: record.size for file, record in bundle.manifest.files.items()}
    summary = check_onnx(bundle.file(name), sizes, name=name)
    opset = max(summary.opset.get(domain, 0) for domain in ("", "ai.onnx"))
    if opset > MAX_OPSET:
        raise ExportError(
            f"{name} uses ONNX operator set {opset}; ONNX Runtime in released Triton images knows "
            f"{MAX_OPSET} at most",
            hint="export the bundle again with `--opset 18`",
        )
    if summary.ir_version > MAX_IR_VERSION:
        raise ExportError(
            f"{name} is an ONNX file of IR version {summary.ir_version}; ONNX Runtime in released "
            f"Triton images knows {MAX_IR_VERSION} at most",
            hint="export the bundle again with `robustzs export`",
        )


def _configs(
    bundle: Bundle, options: ServerOptions, files: dict[Tower, tuple[Precision, str]]
) -> dict[str, Any]:
    """Model name -> configuration; the ensemble, which needs the others, comes last."""
    manifest = bundle.manifest
    records = {
        tower: {
            contract.BUNDLE: bundle.digest,
            contract.DIGEST: contract.tower_digest(bundle, name),
            contract.PRECISION: precision,
        }
        for tower, (precision, name) in files.items()
    }
    made = [
        scale_config(manifest, options),
        encoder_config(manifest, "text", options, records["text"]),
        encoder_config(manifest, "image", options, records["image"]),
        ensemble_config(manifest, options, records["image"]),
    ]
    return {config.name: config for config in made}


def _fill(
    folder: Path,
    bundle: Bundle,
    configs: dict[str, Any],
    files: dict[Tower, tuple[Precision, str]],
) -> None:
    from google.protobuf import text_format

    manifest = bundle.manifest
    for name, config in configs.items():
        _version_folder(folder, name, config).mkdir(parents=True)
        text = text_format.MessageToString(config)
        (folder / name / "config.pbtxt").write_text(text, encoding="utf-8", newline="\n")
    for tower, (_, encoder) in files.items():
        named = contract.model_name(manifest.name, tower)
        version = _version_folder(folder, named, configs[named])
        model, *external = contract.encoder_files(bundle, encoder)
        shutil.copyfile(bundle.file(model), version / "model.onnx")
        for data in external:  # named in the graph, relative to its file
            inside = version / PurePosixPath(data).relative_to(PurePosixPath(model).parent)
            inside.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(bundle.file(data), inside)
    source = contract.byte_tensor(manifest)
    named = contract.model_name(manifest.name, "scale")
    scale = _version_folder(folder, named, configs[named]) / "model.onnx"
    scale.write_bytes(scale_model(source.name, contract.INPUTS["image"], source.dims))


def _version_folder(folder: Path, name: str, config: Any) -> Path:
    number = SCALE_VERSION
    if contract.DIGEST in config.parameters:  # to ask for it by name would make it
        number = contract.model_version(config.parameters[contract.DIGEST].string_value)
    return folder / name / str(number)


def _check_target(target: Path, configs: dict[str, Any], *, force: bool) -> None:
    if target.exists() and not target.is_dir():
        raise BundleExistsError(f"{target} exists and is not a folder", hint="name a folder")
    there = [name for name in configs if os.path.lexists(target / name)]
    if there and not force:
        raise BundleExistsError(
            f"{target} already has {', '.join(there)}", hint="name another folder, or use --force"
        )
    for name in there:
        folder = target / name
        if folder.is_symlink() or not (folder / "config.pbtxt").is_file():
            raise BundleExistsError(f"{folder} is no model; it will not be replaced")


def _staging_place(target: Path) -> Path:
    """Beside the repository, out of a polling server's sight, where that is the same disk."""
    if not target.exists() or target.stat().st_dev == target.parent.stat().st_dev:
        return target.parent
    return target


def _put_in_place(staging: Path, target: Path, names: list[str], *, fresh: bool) -> None:
    if fresh:
        os.rename(staging, target)
        return
    placed: list[tuple[str, bool]] = []
    try:
        for name in names:
            replaces = os.path.lexists(target / name)
            if replaces:
                exchange(staging / name, target / name)  # the old one goes with the staging folder
            else:
                os.rename(staging / name, target / name)
            placed.append((name, replaces))
    except BaseException:  # Ctrl-C, too: all models or none
        for name, replaces in reversed(placed):
            if replaces:
                exchange(staging / name, target / name)
            else:
                os.rename(target / name, staging / name)
        raise


@contextmanager
def _write_errors(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            raise BundleExistsError(
                f"{target} was written to by somebody else meanwhile", hint="try again"
            ) from error
        where = f" ({error.filename})" if error.filename else ""
        raise BundleWriteError(
            f"the repository {target} could not be written: {error.strerror or error}{where}",
            hint="see to free space and permissions, then try again",
        ) from error
