"""Labels and prompt templates, without anything heavy."""

from robustzs.labels.label import Label
from robustzs.labels.label_set import LabelSet
from robustzs.labels.templates import TemplateSet, get_templates

__all__ = ["Label", "LabelSet", "TemplateSet", "get_templates"]
