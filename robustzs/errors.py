"""Every error that robustzs raises on purpose.

```
RobustZSError                          base: .code, .message, .hint
├── UsageError                         an option or argument is out of range or contradicts another
├── MissingExtraError                  an optional dependency is not installed
├── BundleError
│   ├── ModelNotFoundError             no embedded, user or local bundle of that name
│   ├── BundleManifestError            bundle.json is missing, not JSON, or violates the schema
│   ├── BundleSchemaVersionError       written by a newer robustzs
│   ├── BundlePathError                a file name leads out of the bundle
│   ├── BundleFileMissingError         a listed file is not there
│   ├── BundleTruncatedError           a file is shorter or longer than its record
│   ├── BundleDigestError              a file's sha256 differs from its record
│   ├── BundleOriginError              the bundle is whole, but not the one that was expected
│   ├── BundleExistsError              the output folder already holds something
│   ├── BundleWriteError               the bundle could not be written; nothing was left behind
│   ├── BundleWeightsMissingError      no weights to train or attack with
│   ├── TokenizerFileError             tokenizer.json cannot be read or is of another kind
│   └── OnnxGraphError
│       ├── OnnxExternalDataError      external data outside the bundle or not in its record
│       ├── OnnxOperatorDomainError    an operator domain that needs custom code
│       └── OnnxMalformedError         not a readable ONNX protobuf
├── ImageError
│   ├── ImageFormatError               not an image, or a format that is not allowed
│   ├── ImageTruncatedError            the file ends before the picture does
│   ├── ImageTooLargeError             more pixels, bytes or frames than allowed
│   ├── ImageDecodeError               damaged content
│   └── ImageSourceError               not a regular file, not readable, or nothing matched
├── LabelError
│   ├── LabelFileError                 a label file cannot be read or parsed
│   ├── DuplicateLabelError            two labels share an id or a prompt
│   └── TemplateError                  unknown template set, or a template without "{}"
├── HierarchyError
│   ├── CycleError                     a node is its own ancestor
│   ├── MultipleRootsError             more than one node without a parent
│   ├── HierarchyFormatError           a file cannot be parsed or breaks several rules
│   ├── HierarchyLimitError            too deep, too many nodes, names too long
│   ├── UnknownLabelError              WordNet has no noun for a label
│   ├── AmbiguousLabelError            several senses fit a label; .candidates lists them
│   ├── UnknownNodeError               no node of that id, name or rank
│   ├── LabelMismatchError             the leaves of the tree and the labels differ
│   ├── HierarchyDigestError           a tree is not the one that its digest names
│   └── WordNetDataMissingError        WordNet or the noun index is not there or damaged
├── CalibrationError
│   ├── CalibrationMismatchError       made for another model, tree, prompt or strategy
│   └── InsufficientCalibrationDataError
├── BackendError
│   ├── ProviderUnavailableError       the device that was asked for is not the one that was got
│   ├── BackendInputError              wrong dtype, shape or range at the model's boundary
│   └── InferenceError                 the model ran and failed
├── ExportError
│   ├── CheckpointFormatError          an unknown or unsafe checkpoint layout
│   └── ExportParityError              the exported graph does not give what torch gives
└── ServerError                        a remote service refused or failed, with its .status
```

Every message names the offending value; ``hint`` says what to do about it. ``code`` is stable and
is what scripts and the HTTP API use.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar


class RobustZSError(Exception):
    """Base of all errors above.

    Args:
        message: What is wrong, naming the value.
        hint: What to do about it; empty when the message says it.
    """

    code: ClassVar[str] = "error"

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class UsageError(RobustZSError):
    """An option or argument is out of range or contradicts another."""

    code = "usage"


class MissingExtraError(RobustZSError):
    """An optional dependency is not installed."""

    code = "missing-extra"

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(
            f"this needs the package {package!r}, which is not installed",
            hint=f'pip install "robustzs[{extra}]"',
        )


class BundleError(RobustZSError):
    """Something is wrong with a model bundle."""

    code = "bundle"


class ModelNotFoundError(BundleError):
    """No embedded, user or local bundle has that name."""

    code = "model-not-found"


class BundleManifestError(BundleError):
    """``bundle.json`` is missing, is not JSON, or violates the schema."""

    code = "bundle-manifest"


class BundleSchemaVersionError(BundleError):
    """The bundle was written by a newer robustzs."""

    code = "bundle-schema-version"


class BundlePathError(BundleError):
    """A file name in the bundle is absolute, contains ``..``, or links out of the bundle."""

    code = "bundle-path"


class BundleFileMissingError(BundleError):
    """A listed file is not there."""

    code = "bundle-file-missing"


class BundleTruncatedError(BundleError):
    """A file is shorter or longer than its record."""

    code = "bundle-truncated"


class BundleDigestError(BundleError):
    """A file's sha256 differs from its record."""

    code = "bundle-digest"


class BundleOriginError(BundleError):
    """The bundle is whole, but it is not the one that was expected."""

    code = "bundle-origin"


class BundleExistsError(BundleError):
    """The output folder already holds something."""

    code = "bundle-exists"


class BundleWriteError(BundleError):
    """The bundle could not be written; nothing was left behind."""

    code = "bundle-write"


class BundleWeightsMissingError(BundleError):
    """The bundle classifies, but carries no weights to train or attack."""

    code = "bundle-weights-missing"


class TokenizerFileError(BundleError):
    """``tokenizer.json`` cannot be read or is not of the recorded kind."""

    code = "tokenizer-file"


class OnnxGraphError(BundleError):
    """An ONNX file in the bundle is not acceptable."""

    code = "onnx-graph"


class OnnxExternalDataError(OnnxGraphError):
    """External data lies outside the bundle or is not in its record."""

    code = "onnx-external-data"


class OnnxOperatorDomainError(OnnxGraphError):
    """A graph uses an operator domain that would need custom code."""

    code = "onnx-operator-domain"


class OnnxMalformedError(OnnxGraphError):
    """The file is not a readable ONNX protobuf."""

    code = "onnx-malformed"


class ImageError(RobustZSError):
    """Something is wrong with an image."""

    code = "image"


class ImageFormatError(ImageError):
    """Not an image, or a format that is not allowed."""

    code = "image-format"


class ImageTruncatedError(ImageError):
    """The file ends before the picture does."""

    code = "image-truncated"


class ImageTooLargeError(ImageError):
    """More pixels, bytes, frames or metadata than the limits allow."""

    code = "image-too-large"


class ImageDecodeError(ImageError):
    """The content is damaged."""

    code = "image-decode"


class ImageSourceError(ImageError):
    """Not a regular file, not readable, or nothing matched."""

    code = "image-source"


class LabelError(RobustZSError):
    """Something is wrong with the labels.

    Args:
        message: What is wrong.
        hint: What to do about it.
        problems: Every single problem with its place, where there can be several.
    """

    code = "label"

    def __init__(self, message: str, *, hint: str = "", problems: Sequence[str] = ()) -> None:
        super().__init__(message, hint=hint)
        self.problems = tuple(problems)


class LabelFileError(LabelError):
    """A label file cannot be read or parsed."""

    code = "label-file"


class DuplicateLabelError(LabelError):
    """Two labels share an id or a prompt."""

    code = "label-duplicate"


class TemplateError(LabelError):
    """Unknown template set, or a template without a literal ``{}``."""

    code = "template"


class HierarchyError(RobustZSError):
    """Something is wrong with a hierarchy.

    Args:
        message: What is wrong.
        hint: What to do about it.
        problems: Every problem of a file, one sentence each with its line, when there are several.
    """

    code = "hierarchy"

    def __init__(self, message: str, *, hint: str = "", problems: Sequence[str] = ()) -> None:
        super().__init__(message, hint=hint)
        self.problems = tuple(problems)


class CycleError(HierarchyError):
    """A node is its own ancestor."""

    code = "hierarchy-cycle"


class MultipleRootsError(HierarchyError):
    """More than one node has no parent."""

    code = "hierarchy-multiple-roots"


class HierarchyFormatError(HierarchyError):
    """A hierarchy file cannot be parsed, or breaks several rules at once."""

    code = "hierarchy-format"


class HierarchyLimitError(HierarchyError):
    """Too deep, too many nodes, or names too long."""

    code = "hierarchy-limit"


class UnknownLabelError(HierarchyError):
    """WordNet has no noun for a label."""

    code = "label-unknown"


class AmbiguousLabelError(HierarchyError):
    """Several senses fit a label.

    Args:
        message: What is ambiguous.
        candidates: ``(synset, gloss)`` pairs, best first.
        hint: How to choose.
    """

    code = "label-ambiguous"

    def __init__(
        self, message: str, *, candidates: Sequence[tuple[str, str]] = (), hint: str = ""
    ) -> None:
        super().__init__(message, hint=hint)
        self.candidates = tuple(candidates)


class UnknownNodeError(HierarchyError):
    """No node of the tree has that id, name or rank."""

    code = "hierarchy-unknown-node"


class LabelMismatchError(HierarchyError):
    """The leaves of the tree and the labels differ."""

    code = "label-mismatch"


class HierarchyDigestError(HierarchyError):
    """The tree in a file is not the one that its digest names."""

    code = "hierarchy-digest"


class WordNetDataMissingError(HierarchyError):
    """WordNet or the noun index is not there, or damaged."""

    code = "wordnet-data-missing"


class CalibrationError(RobustZSError):
    """Something is wrong with a calibration."""

    code = "calibration"


class CalibrationMismatchError(CalibrationError):
    """The calibration was made for another model, tree, prompt or strategy."""

    code = "calibration-mismatch"


class InsufficientCalibrationDataError(CalibrationError):
    """Too few samples for the guarantee that was asked for."""

    code = "calibration-insufficient"


class BackendError(RobustZSError):
    """The inference engine could not do its work."""

    code = "backend"


class ProviderUnavailableError(BackendError):
    """The device that was asked for is not the one that was got."""

    code = "provider-unavailable"


class BackendInputError(BackendError):
    """Wrong dtype, shape or range at the model's boundary."""

    code = "backend-input"


class InferenceError(BackendError):
    """The model ran and failed."""

    code = "inference"


class ExportError(RobustZSError):
    """A model could not be exported."""

    code = "export"


class CheckpointFormatError(ExportError):
    """An unknown or unsafe checkpoint layout."""

    code = "checkpoint-format"


class ExportParityError(ExportError):
    """The exported graph does not give what torch gives."""

    code = "export-parity"


class ServerError(RobustZSError):
    """A remote service refused or failed.

    Args:
        message: What the service said.
        status: The HTTP status, or ``None`` when no response came.
        hint: What to do about it.
    """

    code = "server"

    def __init__(self, message: str, *, status: int | None = None, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.status = status
