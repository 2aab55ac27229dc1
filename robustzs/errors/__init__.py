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
│   ├── InferenceError                 the model ran and failed
│   └── BackendUnavailableError        no server that could run the model answers
│       ├── BackendOverloadedError     it has too much waiting already
│       ├── BackendTimeoutError        it took too long
│       └── BackendMismatchError       it runs other weights than the bundle's
├── ExportError
│   ├── CheckpointFormatError          an unknown or unsafe checkpoint layout
│   └── ExportParityError              the exported graph does not give what torch gives
├── RecipeError                        a recipe has an unknown key or a value that cannot be
├── DataError
│   ├── DatasetNotFoundError           no folder, file or dataset of that name
│   ├── CaptionTableError              a caption table cannot be read or lacks a column
│   ├── ShardError                     a shard is damaged, or holds or asks for what is refused
│   └── TooManyBadSamplesError         more is unusable than the limit allows
├── CaptionError                       captions could not be made
├── TrainingError
│   ├── PreflightError                 disk, memory or permissions do not suffice for the run
│   ├── DivergenceError                a loss or gradient is not finite, or far above where it was
│   └── TrainingStateError             a training checkpoint is damaged or of another run
├── EvaluationError
│   ├── UntrustworthyResultError       a check refuses to publish a number
│   ├── EvaluationStateError           what a measurement kept is damaged or of another one
│   └── CardError                      a card cannot be read, or contradicts itself or its model
└── ServerError                        a remote service refused or failed, with its .status
    ├── ChatUnavailableError           a chat model was not reached, or kept failing
    └── ChatRefusedError               a chat model refused this one request
```

Every message names the offending value; ``hint`` says what to do about it. ``code`` is stable and
is what scripts and the HTTP API use.
"""

from robustzs.errors.base import (
    MissingExtraError,
    RobustZSError,
    UsageError,
)
from robustzs.errors.bundle import (
    BundleDigestError,
    BundleError,
    BundleExistsError,
    BundleFileMissingError,
    BundleManifestError,
    BundleOriginError,
    BundlePathError,
    BundleSchemaVersionError,
    BundleTruncatedError,
    BundleWeightsMissingError,
    BundleWriteError,
    ModelNotFoundError,
    OnnxExternalDataError,
    OnnxGraphError,
    OnnxMalformedError,
    OnnxOperatorDomainError,
    TokenizerFileError,
)
from robustzs.errors.hierarchy import (
    AmbiguousLabelError,
    CycleError,
    HierarchyDigestError,
    HierarchyError,
    HierarchyFormatError,
    HierarchyLimitError,
    LabelMismatchError,
    MultipleRootsError,
    UnknownLabelError,
    UnknownNodeError,
    WordNetDataMissingError,
)
from robustzs.errors.inputs import (
    DuplicateLabelError,
    ImageDecodeError,
    ImageError,
    ImageFormatError,
    ImageSourceError,
    ImageTooLargeError,
    ImageTruncatedError,
    LabelError,
    LabelFileError,
    TemplateError,
)
from robustzs.errors.running import (
    BackendError,
    BackendInputError,
    BackendMismatchError,
    BackendOverloadedError,
    BackendTimeoutError,
    BackendUnavailableError,
    CalibrationError,
    CalibrationMismatchError,
    ChatRefusedError,
    ChatUnavailableError,
    CheckpointFormatError,
    ExportError,
    ExportParityError,
    InferenceError,
    InsufficientCalibrationDataError,
    ProviderUnavailableError,
    ServerError,
)
from robustzs.errors.training import (
    CaptionError,
    CaptionTableError,
    CardError,
    DataError,
    DatasetNotFoundError,
    DivergenceError,
    EvaluationError,
    EvaluationStateError,
    PreflightError,
    RecipeError,
    ShardError,
    TooManyBadSamplesError,
    TrainingError,
    TrainingStateError,
    UntrustworthyResultError,
)

__all__ = [
    "AmbiguousLabelError",
    "BackendError",
    "BackendInputError",
    "BackendMismatchError",
    "BackendOverloadedError",
    "BackendTimeoutError",
    "BackendUnavailableError",
    "BundleDigestError",
    "BundleError",
    "BundleExistsError",
    "BundleFileMissingError",
    "BundleManifestError",
    "BundleOriginError",
    "BundlePathError",
    "BundleSchemaVersionError",
    "BundleTruncatedError",
    "BundleWeightsMissingError",
    "BundleWriteError",
    "CalibrationError",
    "CalibrationMismatchError",
    "CaptionError",
    "CaptionTableError",
    "CardError",
    "ChatRefusedError",
    "ChatUnavailableError",
    "CheckpointFormatError",
    "CycleError",
    "DataError",
    "DatasetNotFoundError",
    "DivergenceError",
    "DuplicateLabelError",
    "EvaluationError",
    "EvaluationStateError",
    "ExportError",
    "ExportParityError",
    "HierarchyDigestError",
    "HierarchyError",
    "HierarchyFormatError",
    "HierarchyLimitError",
    "ImageDecodeError",
    "ImageError",
    "ImageFormatError",
    "ImageSourceError",
    "ImageTooLargeError",
    "ImageTruncatedError",
    "InferenceError",
    "InsufficientCalibrationDataError",
    "LabelError",
    "LabelFileError",
    "LabelMismatchError",
    "MissingExtraError",
    "ModelNotFoundError",
    "MultipleRootsError",
    "OnnxExternalDataError",
    "OnnxGraphError",
    "OnnxMalformedError",
    "OnnxOperatorDomainError",
    "PreflightError",
    "ProviderUnavailableError",
    "RecipeError",
    "RobustZSError",
    "ServerError",
    "ShardError",
    "TemplateError",
    "TokenizerFileError",
    "TooManyBadSamplesError",
    "TrainingError",
    "TrainingStateError",
    "UnknownLabelError",
    "UnknownNodeError",
    "UntrustworthyResultError",
    "UsageError",
    "WordNetDataMissingError",
]
