"""Pictures that a model is measured on: folders, tables, and data sets by name."""

from robustzs_training.evaluation.sets.native import resize_inside
from robustzs_training.evaluation.sets.opening import open_set
from robustzs_training.evaluation.sets.source_set import SourceSet

__all__ = ["SourceSet", "open_set", "resize_inside"]
