"""`robustzs embed`: features of images or texts, for search or clustering."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterable, Iterator
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from robustzs.cli.options import (
    Backend,
    BackendOption,
    BatchOption,
    CaOption,
    CertOption,
    DeviceOption,
    DigestOption,
    KeyOption,
    ModelOption,
    PrecisionOption,
    ThreadsOption,
    UrlOption,
    triton_target,
)
from robustzs.cli.progress import status, track
from robustzs.errors import UsageError

if TYPE_CHECKING:
    from robustzs.backends.base import Float32Array

    Row = tuple[str, Float32Array | dict[str, str]]


class EmbedFormat(str, Enum):
    """How features are written."""

    jsonl = "jsonl"
    csv = "csv"
    npz = "npz"


def embed(
    images: Annotated[
        list[str] | None,
        typer.Argument(help="Files, folders, globs, or - for stdin.", show_default=False),
    ] = None,
    text: Annotated[
        list[str] | None,
        typer.Option("--text", "-t", help="Embed this text instead of images; repeatable."),
    ] = None,
    model: ModelOption = "robustzs-lite",
    normalize: Annotated[
        bool, typer.Option("--normalize/--raw", help="Scale to unit length, or as the model gives.")
    ] = True,
    output_format: Annotated[
        EmbedFormat | None,
        typer.Option("--format", "-f", help="Else by the output's suffix, else jsonl"),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write the features to this file.")
    ] = None,
    batch_size: BatchOption = 16,
    device: DeviceOption = "cpu",
    threads: ThreadsOption = None,
    image_precision: PrecisionOption = None,
    backend: BackendOption = Backend.onnx,
    url: UrlOption = None,
    tls_ca: CaOption = None,
    tls_cert: CertOption = None,
    tls_key: KeyOption = None,
    expect_digest: DigestOption = None,
) -> None:
    """Write the features of images or texts: one row each, in order.

    \b
    Examples:
      robustzs embed photos/ -o features.npz
      robustzs embed --text "a photo of a cat" --text "a photo of a dog"
    """  # noqa: D301
    if bool(images) == bool(text):
        raise UsageError(
            "name images, or texts with --text, not both", hint="robustzs embed photo.jpg"
        )
    chosen = _choose_format(output_format, output)
    options = {
        "device": device,
        "threads": threads,
        "image_precision": None if image_precision is None else image_precision.value,
        "expect_digest": expect_digest,
        "triton": triton_target(backend, url, ca_file=tls_ca, cert_file=tls_cert, key_file=tls_key),
    }
    if text:
        rows = _embed_texts(text, model, normalize, options)
    else:
        rows = _embed_images(images or [], model, normalize, batch_size, options)
    writers = {
        EmbedFormat.jsonl: _write_jsonl,
        EmbedFormat.csv: _write_csv,
        EmbedFormat.npz: _write_npz,
    }
    shown = track(rows, "embedding", enabled=output is not None)
    if writers[chosen](shown, output):
        raise typer.Exit(1)


def _choose_format(given: EmbedFormat | None, output: Path | None) -> EmbedFormat:
    known = {f".{member.value}": member for member in EmbedFormat}
    suffix = "" if output is None else output.suffix.lower()
    # What has no suffix, such as /dev/stdout, has said nothing about its format.
    if given is None and suffix and suffix not in known:
        raise UsageError(
            f"features cannot be written as {suffix}: {str(output)!r}",
            hint=f"end the name in {', '.join(known)}, or say --format",
        )
    chosen = given or known.get(suffix, EmbedFormat.jsonl)
    if chosen is EmbedFormat.npz and output is None:
        raise UsageError("npz is binary and needs a file", hint="--output features.npz")
    return chosen


def _unit(features: Float32Array, normalize: bool) -> Float32Array:
    from robustzs.scoring import normalize as to_unit_length

    return to_unit_length(features) if normalize else features


def _embed_texts(
    texts: list[str], model: str, normalize: bool, options: dict[str, Any]
) -> Iterator[Row]:
    from robustzs.classifier import Embedder

    with status("embedding") as report:
        embedder = Embedder.load(model, **options)
        features = embedder.embed_texts(texts, progress=report)
    yield from zip(texts, _unit(features, normalize), strict=True)


def _embed_images(
    images: list[str], model: str, normalize: bool, batch_size: int, options: dict[str, Any]
) -> Iterator[Row]:
    from robustzs.answer import AnswerError
    from robustzs.classifier import Embedder
    from robustzs.images.sources import iter_sources

    embedder = Embedder.load(model, **options)
    for name, result in embedder.embed_images(iter_sources(images), batch_size=batch_size):
        if isinstance(result, AnswerError):
            yield name, {"code": result.error.code, "message": result.error.message}
        else:
            yield name, _unit(result[None], normalize)[0]


def _write_jsonl(rows: Iterable[Row], output: Path | None) -> bool:
    from robustzs.cli.escape import json_safe
    from robustzs.cli.render import open_output

    failed = False
    with open_output(output, sys.stdout) as stream:
        for name, value in rows:
            key = "error" if isinstance(value, dict) else "features"
            failed = failed or key == "error"
            plain = value if isinstance(value, dict) else [float(number) for number in value]
            stream.write(json_safe({"input": name, key: plain}) + "\n")
            stream.flush()
    return failed


def _write_csv(rows: Iterable[Row], output: Path | None) -> bool:
    import csv

    from robustzs.cli.escape import csv_safe
    from robustzs.cli.render import open_output

    failed = False
    with open_output(output, sys.stdout) as stream:
        table = csv.writer(stream, lineterminator="\n")
        for name, value in rows:
            if isinstance(value, dict):
                failed = True
                _complain(name, value)
            else:
                table.writerow([csv_safe(name), *(repr(float(number)) for number in value)])
    return failed


def _write_npz(rows: Iterable[Row], output: Path | None) -> bool:
    """``inputs`` ``[N]`` text and ``features`` ``[N, D]`` float32; load without pickle."""
    import numpy as np

    from robustzs.cli.render import open_output_bytes

    names: list[str] = []
    vectors: list[Float32Array] = []
    failed = False
    for name, value in rows:
        if isinstance(value, dict):
            failed = True
            _complain(name, value)
        else:
            names.append(name)
            vectors.append(value)
    buffer = io.BytesIO()
    features = np.stack(vectors) if vectors else np.zeros((0, 0), dtype=np.float32)
    np.savez(buffer, inputs=np.array(names, dtype=np.str_), features=features)
    if output is not None:
        with open_output_bytes(output) as stream:
            stream.write(buffer.getvalue())
    return failed


def _complain(name: str, error: dict[str, str]) -> None:
    from robustzs.cli.escape import terminal_safe

    sys.stderr.write(terminal_safe(f"{name}: {error['message']} [{error['code']}]") + "\n")
