"""What an ONNX file may contain before an engine is allowed to open it.

The guard reads the protobuf itself (no onnx package, no copy of the weights) and refuses

- external data that is not a recorded file of the same bundle,
- operators that need code from elsewhere: any domain but ONNX's own, ``com.microsoft`` (built into
  ONNX Runtime) and those of functions that the file itself defines,
- bytes that are not an ONNX model.

Field numbers: ``onnx.proto`` of ONNX 1.23; fields unknown to it are skipped, as protobuf does.
"""

from __future__ import annotations

import mmap
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from robustzs.bundle.names import check_file_name, open_regular
from robustzs.bundle.protobuf import LENGTH, VARINT, Field, WireReader
from robustzs.errors import (
    BundlePathError,
    OnnxExternalDataError,
    OnnxMalformedError,
    OnnxOperatorDomainError,
)

ALLOWED_DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft"})
# Operators of com.microsoft that run or load code that is not in the graph.
REFUSED_OPERATORS = frozenset(
    {("com.microsoft", name) for name in ("EPContext", "PythonOp", "PythonOpGrad", "TritonOp")}
)
MAX_DEPTH = 32
MAX_FIELDS = 2_000_000
_EXTERNAL = 1  # TensorProto.DataLocation.EXTERNAL


@dataclass(frozen=True)
class TensorInfo:
    """Name, element type (``TensorProto.DataType``) and shape of a graph's input or output.

    A dimension is a number, a name, or ``None`` where the file says nothing.
    """

    name: str
    elem_type: int
    shape: tuple[int | str | None, ...]


@dataclass
class OnnxSummary:
    """What the guard saw."""

    ir_version: int = 0
    opset: dict[str, int] = field(default_factory=dict)
    domains: set[str] = field(default_factory=set)
    external_files: set[str] = field(default_factory=set)
    n_nodes: int = 0
    inputs: list[TensorInfo] = field(default_factory=list)
    outputs: list[TensorInfo] = field(default_factory=list)


def check_onnx(path: Path, files: Mapping[str, int], *, name: str | None = None) -> OnnxSummary:
    """Check one ONNX file of a bundle.

    Args:
        path: The file.
        files: The bundle's recorded files: name -> size in bytes.
        name: The file's own name in the bundle, for messages and as the base of external data;
            the last part of ``path`` when not given.

    Raises:
        OnnxExternalDataError: external data that is not a recorded file, or outside its bounds.
        OnnxOperatorDomainError: an operator that needs custom code.
        OnnxMalformedError: not a readable ONNX file.
        BundleFileMissingError: the file cannot be opened.
    """
    name = name if name is not None else path.name
    with open_regular(path) as stream:
        try:
            buffer = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError:
            raise OnnxMalformedError(
                f"{name} is empty", hint="copy or export the bundle again"
            ) from None
        except OSError as error:
            raise OnnxMalformedError(f"{name} cannot be read: {error.strerror}") from error
        with buffer:
            if buffer[4:8] == b"ORTM":
                raise OnnxMalformedError(
                    f"{name} is in ONNX Runtime's own format, which cannot be checked",
                    hint="use the ONNX file that it was made from",
                )
            return _Walker(WireReader(buffer, name, MAX_FIELDS), name, files).model(len(buffer))


class _Walker:
    """Visits every message of a model that can name a file or an operator."""

    def __init__(self, reader: WireReader, name: str, files: Mapping[str, int]) -> None:
        self._reader = reader
        self._name = name
        self._files = files
        self._operators: set[tuple[str, str]] = set()
        self._functions: set[tuple[str, str]] = set()
        self.summary = OnnxSummary()

    def model(self, size: int) -> OnnxSummary:
        """ModelProto."""
        n_graphs = 0
        for item in self._reader.fields(0, size):
            number = item[0]
            if number == 1:
                self.summary.ir_version = self._reader.expect(item, VARINT)[2]
            elif number == 7:
                n_graphs += 1
                self._graph(item, 0, top=True)
            elif number == 8:
                self._opset(item)
            elif number == 20:
                self._training(item)
            elif number == 25:
                self._function(item)
        if n_graphs != 1:
            raise self._reader.malformed("it has no graph" if n_graphs == 0 else "it has 2 graphs")
        if not self.summary.opset:
            raise self._reader.malformed("it imports no operator set")
        self._check_operators()
        return self.summary

    def _check_operators(self) -> None:
        foreign = sorted(
            (domain, op)
            for domain, op in self._operators - self._functions
            if domain not in ALLOWED_DOMAINS or (domain, op) in REFUSED_OPERATORS
        )
        self.summary.domains = {domain for domain, _ in self._operators}
        if foreign:
            listed = ", ".join(f"{domain or 'ai.onnx'}::{op}" for domain, op in foreign[:5])
            more = f" and {len(foreign) - 5} more" if len(foreign) > 5 else ""
            raise OnnxOperatorDomainError(
                f"{self._name} uses operators that need custom code: {listed}{more}",
                hint="allowed are the domains ai.onnx, ai.onnx.ml and com.microsoft",
            )

    def _opset(self, item: Field) -> None:
        domain, version = "", 0
        for part in self._message(item, 0):
            if part[0] == 1:
                domain = self._reader.text(part)
            elif part[0] == 2:
                version = self._reader.expect(part, VARINT)[2]
        self.summary.opset[domain] = version

    def _training(self, item: Field) -> None:
        for part in self._message(item, 0):
            if part[0] in (1, 2):
                self._graph(part, 1)

    def _function(self, item: Field) -> None:
        domain = name = ""
        for part in self._message(item, 0):
            number = part[0]
            if number == 1:
                name = self._reader.text(part)
            elif number == 7:
                self._node(part, 1)
            elif number == 10:
                domain = self._reader.text(part)
            elif number == 11:
                self._attribute(part, 1)
        if domain not in ALLOWED_DOMAINS:
            self._functions.add((domain, name))

    def _graph(self, item: Field, depth: int, *, top: bool = False) -> None:
        for part in self._message(item, depth):
            number = part[0]
            if number == 1:
                self._node(part, depth + 1)
            elif number == 5:
                self._tensor(part, depth + 1)
            elif number == 15:
                self._sparse_tensor(part, depth + 1)
            elif top and number == 11:
                self.summary.inputs.append(self._value_info(part))
            elif top and number == 12:
                self.summary.outputs.append(self._value_info(part))

    def _node(self, item: Field, depth: int) -> None:
        self.summary.n_nodes += 1
        domain = op_type = ""
        for part in self._message(item, depth):
            number = part[0]
            if number == 5:
                self._attribute(part, depth + 1)
            elif number == 4:
                op_type = self._reader.text(part)
            elif number == 7:
                domain = self._reader.text(part)
        self._operators.add((domain, op_type))

    def _attribute(self, item: Field, depth: int) -> None:
        for part in self._message(item, depth):
            number = part[0]
            if number in (5, 10):
                self._tensor(part, depth + 1)
            elif number in (6, 11):
                self._graph(part, depth + 1)
            elif number in (22, 23):
                self._sparse_tensor(part, depth + 1)

    def _sparse_tensor(self, item: Field, depth: int) -> None:
        for part in self._message(item, depth):
            if part[0] in (1, 2):
                self._tensor(part, depth + 1)

    def _tensor(self, item: Field, depth: int) -> None:
        external: dict[str, str] = {}
        is_external = False
        for part in self._message(item, depth):
            number = part[0]
            if number == 13:
                key, value = self._entry(part, depth + 1)
                if key in external:
                    raise self._external_error(f"says {key!r} twice")
                external[key] = value
            elif number == 14:
                is_external |= self._reader.expect(part, VARINT)[2] == _EXTERNAL
        if external or is_external:
            self._external(external)

    def _entry(self, item: Field, depth: int) -> tuple[str, str]:
        key = value = ""
        for part in self._message(item, depth):
            if part[0] == 1:
                key = self._reader.text(part)
            elif part[0] == 2:
                value = self._reader.text(part)
        return key, value

    def _external(self, entries: dict[str, str]) -> None:
        location = entries.get("location", "")
        try:
            # The engine reads the location relative to the folder of the ONNX file.
            name = check_file_name("/".join([*self._name.split("/")[:-1], location]))
            check_file_name(location)
        except BundlePathError as error:
            raise self._external_error(f"points at {location[:200]!r}") from error
        if name not in self._files:
            raise self._external_error(f"points at {name!r}, which is not in the bundle's record")
        numbers = [entries.get("offset") or "0", entries.get("length") or "0"]
        if not all(re.fullmatch(r"[0-9]{1,19}", number) for number in numbers):
            raise self._external_error(f"has the offset and length {numbers}")
        if sum(map(int, numbers)) > self._files[name]:
            raise self._external_error(f"reaches beyond the end of {name!r}")
        self.summary.external_files.add(name)

    def _external_error(self, what: str) -> OnnxExternalDataError:
        return OnnxExternalDataError(
            f"external data of {self._name} {what}",
            hint="external data must be a file of the same bundle that bundle.json records",
        )

    def _value_info(self, item: Field) -> TensorInfo:
        name, elem_type = "", 0
        shape: list[int | str | None] = []
        for part in self._message(item, 1):
            if part[0] == 1:
                name = self._reader.text(part)
            elif part[0] == 2:
                for kind in self._message(part, 2):
                    if kind[0] == 1:
                        elem_type, shape = self._tensor_type(kind)
        return TensorInfo(name, elem_type, tuple(shape))

    def _tensor_type(self, item: Field) -> tuple[int, list[int | str | None]]:
        elem_type = 0
        shape: list[int | str | None] = []
        for part in self._message(item, 3):
            if part[0] == 1:
                elem_type = self._reader.expect(part, VARINT)[2]
            elif part[0] == 2:
                shape = [self._dimension(dim) for dim in self._message(part, 4) if dim[0] == 1]
        return elem_type, shape

    def _dimension(self, item: Field) -> int | str | None:
        value: int | str | None = None
        for part in self._message(item, 5):
            if part[0] == 1:
                value = self._reader.expect(part, VARINT)[2]
            elif part[0] == 2:
                value = self._reader.text(part)
        return value

    def _message(self, item: Field, depth: int) -> Iterator[Field]:
        if depth > MAX_DEPTH:
            raise self._reader.malformed(f"graphs nested more than {MAX_DEPTH} deep")
        _, _, start, end = self._reader.expect(item, LENGTH)
        return self._reader.fields(start, end)
