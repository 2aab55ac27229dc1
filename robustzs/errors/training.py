"""What may go wrong while a model is trained, captioned for, or measured."""

from __future__ import annotations

from robustzs.errors.base import RobustZSError


class RecipeError(RobustZSError):
    """A recipe has an unknown key or a value that cannot be."""

    code = "recipe"


class DataError(RobustZSError):
    """Training or evaluation data cannot be used."""

    code = "data"


class DatasetNotFoundError(DataError):
    """No folder, file or dataset of that name."""

    code = "dataset-not-found"


class CaptionTableError(DataError):
    """A caption table cannot be read or lacks a column."""

    code = "caption-table"


class ShardError(DataError):
    """A shard is damaged, or holds or asks for what is refused."""

    code = "shard"


class TooManyBadSamplesError(DataError):
    """More images, captions or names are unusable than the limit allows."""

    code = "too-many-bad-samples"


class CaptionError(RobustZSError):
    """Captions could not be made."""

    code = "caption"


class TrainingError(RobustZSError):
    """A training run cannot start or go on."""

    code = "training"


class PreflightError(TrainingError):
    """Disk, memory or permissions do not suffice for the run that was asked for."""

    code = "preflight"


class DivergenceError(TrainingError):
    """The loss or a gradient is not finite, or far above where it was."""

    code = "divergence"


class TrainingStateError(TrainingError):
    """A training checkpoint is damaged or belongs to another run."""

    code = "training-state"


class EvaluationError(RobustZSError):
    """A model could not be measured."""

    code = "evaluation"


class UntrustworthyResultError(EvaluationError):
    """A check refuses to publish a number."""

    code = "untrustworthy-result"


class EvaluationStateError(EvaluationError):
    """What a measurement kept is damaged, or belongs to another one."""

    code = "evaluation-state"


class CardError(EvaluationError):
    """A card cannot be read, or contradicts itself or its model."""

    code = "card"
