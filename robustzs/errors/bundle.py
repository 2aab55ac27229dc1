"""What may be wrong with a model bundle."""

from __future__ import annotations

from robustzs.errors.base import RobustZSError


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
