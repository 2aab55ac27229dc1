"""Answers as a table for people, and as JSON, JSON lines or CSV for programs.

Results go to stdout (or `--output`), everything else to stderr. Text that came from outside (file
names, labels) is escaped by ``robustzs.cli.escape`` before it is shown.
"""

from __future__ import annotations

import csv
import errno
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Literal, Protocol, TextIO

from robustzs.answer import Answer, AnswerError, Node, PathNode, Stop, TreeAnswer
from robustzs.cli.escape import csv_safe, json_safe, terminal_safe
from robustzs.errors import UsageError

Format = Literal["table", "json", "jsonl", "csv"]
Row = Answer | AnswerError

CSV_COLUMNS = (
    "image",
    "id",
    "name",
    "synset",
    "depth",
    "probability",
    "is_leaf",
    "specificity",
    "theta",
    "stop_reason",
    "flat_top1_id",
    "flat_top1_name",
    "flat_top1_probability",
    "path",
    "rejected",
    "low_confidence",
    "error_code",
    "error_message",
)


class Writer(Protocol):
    """Takes rows one by one, so that memory does not grow with their number."""

    def write(self, row: Row) -> None:
        """Write one row."""
        ...

    def close(self) -> None:
        """Write what ends the document."""
        ...


class TableWriter:
    """For people: the path down the tree for each image, or one line each when there are many."""

    def __init__(self, stream: TextIO, *, full_path: bool) -> None:
        self._stream = stream
        self._full_path = full_path
        self._first = True

    def write(self, row: Row) -> None:
        """Write one row."""
        if self._full_path and not self._first:
            self._stream.write("\n")
        self._first = False
        if isinstance(row, AnswerError):
            line = f"{row.image}   error: {row.error.message}   [{row.error.code}]"
            self._stream.write(terminal_safe(line) + "\n")
        else:
            self._stream.write("\n".join(answer_lines(row, full_path=self._full_path)) + "\n")
        self._stream.flush()

    def close(self) -> None:
        """Nothing ends a table."""


class JsonWriter:
    """One object for one image; an array for several."""

    def __init__(self, stream: TextIO, *, single: bool) -> None:
        self._stream = stream
        self._single = single
        self._separator = "[\n"

    def write(self, row: Row) -> None:
        """Write one row."""
        text = json_safe(row.model_dump(mode="json"), indent=2)
        self._stream.write(text if self._single else self._separator + text)
        self._separator = ",\n"

    def close(self) -> None:
        """End the array."""
        if self._single:
            self._stream.write("\n")
        else:
            self._stream.write("[]\n" if self._separator == "[\n" else "\n]\n")


class JsonLinesWriter:
    """One object a line."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, row: Row) -> None:
        """Write one row."""
        self._stream.write(json_safe(row.model_dump(mode="json")) + "\n")
        self._stream.flush()

    def close(self) -> None:
        """Nothing ends JSON lines."""


class CsvWriter:
    """One line an image, with a header; ``path`` is the ids from the root to the answer."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._buffer = io.StringIO()
        self._csv = csv.DictWriter(self._buffer, CSV_COLUMNS, lineterminator="\n", restval="")
        self._csv.writeheader()

    def write(self, row: Row) -> None:
        """Write one row."""
        self._csv.writerow({name: csv_safe(value) for name, value in _csv_cells(row).items()})
        self._drain()

    def close(self) -> None:
        """Write the header when there was no row."""
        self._drain()

    def _drain(self) -> None:
        self._stream.write(self._buffer.getvalue())
        self._stream.flush()
        self._buffer.seek(0)
        self._buffer.truncate()


def _csv_cells(row: Row) -> dict[str, str | float | bool | None]:
    if isinstance(row, AnswerError):
        return {
            "image": row.image,
            "error_code": row.error.code,
            "error_message": row.error.message,
        }
    prediction, top1 = row.prediction, row.flat_top1
    down = [node.id for node in row.path if node.depth <= prediction.depth]
    return {
        "image": row.image,
        "id": prediction.id,
        "name": prediction.name,
        "synset": prediction.synset,
        "depth": prediction.depth,
        "probability": round(prediction.probability, 6),
        "is_leaf": prediction.is_leaf,
        "specificity": round(prediction.specificity, 6),
        "theta": round(row.stop.theta, 6),
        "stop_reason": row.stop.reason,
        "flat_top1_id": top1.id,
        "flat_top1_name": top1.name,
        "flat_top1_probability": round(top1.probability, 6),
        "path": " > ".join(down),
        "rejected": row.rejected,
        "low_confidence": row.low_confidence,
    }


def create_writer(
    output_format: Format, stream: TextIO, *, single: bool, full_path: bool
) -> Writer:
    """The writer for ``output_format``.

    Args:
        output_format: One of ``Format``.
        stream: Where the rows go.
        single: Exactly one image was asked for (JSON: an object instead of an array).
        full_path: Tables show every node of the path.
    """
    if output_format == "table":
        return TableWriter(stream, full_path=full_path)
    if output_format == "json":
        return JsonWriter(stream, single=single)
    if output_format == "jsonl":
        return JsonLinesWriter(stream)
    return CsvWriter(stream)


@contextmanager
def open_output(path: Path | None, stdout: TextIO) -> Iterator[TextIO]:
    """Where text results go: ``stdout``, or a file that takes its name only when it is whole.

    An interrupted run leaves its rows in ``<name>.part`` and an older file of that name untouched;
    a run that wrote nothing leaves nothing.

    Raises:
        UsageError: ``path`` cannot be written.
    """
    if path is None:
        yield stdout
        return
    with open_output_bytes(path) as binary:
        stream = io.TextIOWrapper(binary, encoding="utf-8", newline="", write_through=True)
        try:
            yield stream
        finally:
            stream.detach()


@contextmanager
def open_output_bytes(path: Path) -> Iterator[BinaryIO]:
    """Like :func:`open_output`, for bytes and always a file.

    A link is followed, so that the file behind it is replaced and the link stays. What is not a
    regular file, such as ``/dev/stdout`` or a pipe, is written to directly.

    Raises:
        UsageError: ``path`` cannot be written.
    """
    try:
        target = path.resolve() if path.is_symlink() and path.is_file() else path
        if target.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        direct = target.exists() and not target.is_file()
        part = target if direct else target.with_name(target.name + ".part")
        stream = part.open("wb")
    except (OSError, ValueError) as error:
        raise _unwritable(path, error) from error
    try:
        with stream:
            yield stream
        if not direct:
            try:
                part.replace(target)
            except OSError as error:
                raise _unwritable(path, error) from error
    finally:
        if not direct and part.exists() and part.stat().st_size == 0:
            part.unlink()


def _unwritable(path: Path, error: OSError | ValueError) -> UsageError:
    reason = getattr(error, "strerror", None) or "not a file name"
    return UsageError(
        f"cannot write {str(path)!r}: {reason}", hint="name a file in a folder that you can write"
    )


def _stop_text(prediction: Node, path: tuple[PathNode, ...], stop: Stop) -> str:
    source = {"calibration": "calibrated", "user": "yours", "bundle": "the model's"}.get(
        stop.source, stop.source
    )
    if stop.alpha is not None:
        source += f", alpha={stop.alpha:g}"
    theta = f"theta {stop.theta:.2f} ({source})"
    if stop.reason == "rejected":
        return "none of these: too unlike every label"
    if stop.reason == "leaf":
        return f"a leaf; {theta}"
    deepest = path[-1].depth
    where = f"stopped at depth {prediction.depth} of {deepest}"
    if stop.reason in ("level", "max-depth"):
        return f"{where}: the level that was asked for"
    following = next((node for node in path if node.depth == prediction.depth + 1), None)
    if following is None:
        return f"{where}; {theta}"
    return f"{where}: {following.name} {following.probability:.2f} <= {theta}"


def answer_lines(answer: Answer, *, full_path: bool) -> list[str]:
    """The lines of one answer; the first stands alone as a summary."""
    prediction = answer.prediction
    marks = "   low confidence" if answer.low_confidence else ""
    head = (
        f"{answer.image}   {prediction.name}  ({prediction.synset or prediction.id})   "
        f"p={prediction.probability:.2f}   "
        f"{_stop_text(prediction, answer.path, answer.stop)}{marks}"
    )
    lines = [head]
    if full_path:
        lines += _path_lines(answer.path, prediction)
        lines.append(_others_line(answer))
        for tree in answer.forest:
            lines += _tree_lines(tree)
    return [terminal_safe(line) for line in lines]


def _path_lines(path: tuple[PathNode, ...], prediction: Node) -> list[str]:
    lines = [" depth  p      p|parent  node"]
    for node in path:
        mark = ">" if node.id == prediction.id else " "
        lines.append(
            f"{mark} {node.depth:>3}   {node.probability:.3f}  {node.conditional_probability:.3f}"
            f"     {node.name}"
        )
    return lines


def _others_line(answer: Answer) -> str:
    line = f" flat top-1: {answer.flat_top1.name} {answer.flat_top1.probability:.3f}"
    if answer.alternatives:
        shown = ", ".join(f"{node.name} {node.probability:.2f}" for node in answer.alternatives[:3])
        line += f"      other children of {answer.prediction.name}: {shown}"
    return line


def _tree_lines(tree: TreeAnswer) -> list[str]:
    head = (
        f" in {tree.hierarchy.name}: {tree.prediction.name}  p={tree.prediction.probability:.2f}   "
        f"{_stop_text(tree.prediction, tree.path, tree.stop)}"
    )
    return [head, *_path_lines(tree.path, tree.prediction)]
