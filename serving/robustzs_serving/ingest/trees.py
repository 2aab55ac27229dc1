"""Hierarchies from a request: names of built-in ones, ids of stored ones, or trees as data."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from robustzs.errors import HierarchyFormatError, HierarchyLimitError
from robustzs.hierarchy.limits import HierarchyLimits
from robustzs.hierarchy.load import BUILT_IN
from robustzs.hierarchy.tree import Hierarchy
from robustzs_serving.errors import FieldValueError, quoted
from robustzs_serving.ingest.calls import Tree
from robustzs_serving.ingest.strict_json import Json
from robustzs_serving.settings import Limits

_ID = re.compile(r"[a-z0-9-]{1,64}", re.ASCII)


@dataclass(frozen=True)
class AskedTrees:
    """What a request says about its hierarchy: trees, or the id of stored ones."""

    trees: tuple[Tree, ...] | None = None
    stored_id: str | None = None


def trees_of(value: Json, limits: Limits) -> AskedTrees:
    """The hierarchy that a request asks for.

    Raises:
        FieldValueError: no such name, and not the form of an id either.
        HierarchyError: a wrong tree, too large a one, or too many.
    """
    if isinstance(value, str):
        names = [part.strip() for part in value.split(",")] if "," in value else [value.strip()]
        if len(names) == 1 and names[0] not in BUILT_IN and _ID.fullmatch(names[0]):
            return AskedTrees(stored_id=names[0])
        value = names
    several = value if isinstance(value, list) else [value]
    _check_number(len(several), limits)
    return AskedTrees(trees=tuple(_tree(item, limits) for item in several))


def stored_trees_of(value: Json, limits: Limits) -> tuple[Hierarchy, ...]:
    """Trees to store: one, or a list of them for a forest.

    Raises:
        HierarchyError: wrong trees, too large ones, or too many.
    """
    several = value if isinstance(value, list) else [value]
    _check_number(len(several), limits)
    return tuple(_parsed(item, limits) for item in several)


def _check_number(n_trees: int, limits: Limits) -> None:
    if n_trees < 1:
        raise HierarchyFormatError("the list of hierarchies is empty", hint="leave the field out")
    if n_trees > limits.max_trees:
        raise HierarchyLimitError(f"{n_trees} hierarchies, the limit is {limits.max_trees}")


def _tree(item: Json, limits: Limits) -> Tree:
    if isinstance(item, dict):
        return _parsed(item, limits)
    # Names, and only names: the service opens no file that a client points to.
    if isinstance(item, str) and item in BUILT_IN:
        return item
    raise FieldValueError(
        f"unknown hierarchy {quoted(item)}",
        hint=f"{', '.join(BUILT_IN)}, the id of a stored one alone, or trees in their JSON form",
    )


def _parsed(item: Json, limits: Limits) -> Hierarchy:
    if not isinstance(item, dict):
        raise HierarchyFormatError(
            f"a hierarchy is an object, not {quoted(item)}",
            hint="`robustzs hierarchy build --format json` writes such trees",
        )
    nodes = item.get("nodes")
    if isinstance(nodes, list) and len(nodes) > limits.max_tree_nodes:
        raise HierarchyLimitError(
            f"hierarchy: {len(nodes)} nodes, the limit is {limits.max_tree_nodes}",
            hint="the deployer sets ROBUSTZS_MAX_TREE_NODES",
        )
    bounds = HierarchyLimits(
        max_nodes=limits.max_tree_nodes,
        max_depth=limits.max_tree_depth,
        max_text=limits.max_label_chars,
    )
    return Hierarchy.from_json(json.dumps(item), source="hierarchy", limits=bounds)
