"""Which options each objective has, read off its own constructor.

A recipe's ``objective`` part holds them beside the name, so that a new option of an objective is
at once an option of recipes, with its type and its default.
"""

from __future__ import annotations

import dataclasses
import inspect
from functools import cache
from typing import Any, get_type_hints

from pydantic import BaseModel, ConfigDict, create_model

from robustzs_training.objectives import (
    Agft,
    Fare,
    FareKl,
    HierarchicalOptions,
    PmgAft,
    QtAft,
    SimClip,
    Tecoa,
    TgaZsr,
)
from robustzs_training.recipe import ObjectiveName

CLASS_OBJECTIVES = {
    "tecoa": Tecoa,
    "pmg-aft": PmgAft,
    "tga-zsr": TgaZsr,
    "agft": Agft,
    "fare-kl": FareKl,
}
"""Objectives over text features of the classes."""
FEATURE_OBJECTIVES = {"fare": Fare, "sim-clip": SimClip}
"""Objectives that need images alone."""
LABELLED = frozenset({"tecoa", "pmg-aft", "tga-zsr", "hierarchical", "qt-aft-hierarchical"})
"""Objectives that need the class of every image."""
ANY_CLASSES = frozenset(CLASS_OBJECTIVES) - LABELLED
"""Objectives that need only a list of classes: the data's own, or their option ``classes``."""
CAPTIONED = frozenset({"qt-aft", "qt-aft-hierarchical"})
"""Objectives that need a caption of every image."""
TREED = frozenset({"hierarchical", "qt-aft-hierarchical"})
"""Objectives that need trees over the classes."""

_CONFIG = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


@cache
def options_model(name: ObjectiveName) -> type[BaseModel]:
    """A pydantic model of the options of one objective.

    ``qt-aft-hierarchical`` has ``captions`` (options of ``qt-aft``), ``tree`` (options of
    ``hierarchical``) and ``tree_weight``. :data:`ANY_CLASSES` have ``classes``: `imagenet-1k`,
    or what ``--labels`` takes; ``None`` is the data's own.
    """
    if name == "hierarchical":
        return _of_dataclass("hierarchical", HierarchicalOptions)
    if name == "qt-aft":
        return _of_signature("qt-aft", QtAft)
    if name == "qt-aft-hierarchical":
        captions, tree = options_model("qt-aft"), options_model("hierarchical")
        return create_model(
            name,
            __config__=_CONFIG,
            captions=(captions, captions()),
            tree=(tree, tree()),
            tree_weight=(float, 1.0),
        )
    objective: type = {**CLASS_OBJECTIVES, **FEATURE_OBJECTIVES}[name]
    options = _of_signature(name, objective)
    if name in ANY_CLASSES:
        return create_model(name, __base__=options, classes=(str | None, None))
    return options


def _of_signature(name: str, kind: type) -> type[BaseModel]:
    constructor = next(vars(each)["__init__"] for each in kind.__mro__ if "__init__" in vars(each))
    hints = get_type_hints(constructor)
    fields: dict[str, Any] = {
        parameter.name: (hints[parameter.name], parameter.default)
        for parameter in inspect.signature(constructor).parameters.values()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }
    return create_model(name, __config__=_CONFIG, **fields)


def _of_dataclass(name: str, kind: type) -> type[BaseModel]:
    hints = get_type_hints(kind)
    fields: dict[str, Any] = {
        field.name: (hints[field.name], field.default) for field in dataclasses.fields(kind)
    }
    return create_model(name, __config__=_CONFIG, **fields)
