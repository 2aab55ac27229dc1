"""One way in for all formats."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path

from robustzs.errors import HierarchyFormatError, UsageError
from robustzs.hierarchy.build import BuildOptions, InternalLabel, MultipleParents
from robustzs.hierarchy.document import FORMAT
from robustzs.hierarchy.formats.edge_lists import BREEDS_EDGES, read_breeds, read_is_a
from robustzs.hierarchy.formats.nested import (
    ATTRIBUTES_KEY,
    parse_outline,
    read_chils,
    read_nested,
)
from robustzs.hierarchy.formats.outline import Mapping, Scalar, Sequence
from robustzs.hierarchy.formats.reading import Reading, renamed, resolve_ids
from robustzs.hierarchy.formats.source import read_text
from robustzs.hierarchy.formats.tables import is_edge_header, read_edges, read_table, read_wide
from robustzs.hierarchy.limits import DEFAULT_LIMITS, HierarchyLimits
from robustzs.hierarchy.tree import Hierarchy
from robustzs.labels.rules import is_wnid

_READERS: dict[str, Callable[[Path, HierarchyLimits], Reading]] = {
    "nested": read_nested,
    "chils": read_chils,
    "edges": read_edges,
    "wide": read_wide,
    "breeds": read_breeds,
    "is-a": read_is_a,
}
FORMATS = ("json", *_READERS)
_IMPLIED_ROOT = "root"


def read_hierarchy(
    path: str | Path,
    format: str = "auto",
    *,
    name: str | None = None,
    labels: Collection[str] | None = None,
    on_internal_label: InternalLabel = "error",
    on_multiple_parents: MultipleParents | None = None,
    virtual_root: str | None = None,
    limits: HierarchyLimits = DEFAULT_LIMITS,
) -> Hierarchy:
    """Read a hierarchy.

    Args:
        path: A file, or a BREEDS folder.
        format: One of :data:`FORMATS`, or ``"auto"`` to recognise it; see the package's table.
        name: The tree's name; the file's own, else the file name, when ``None``.
        labels: Ids that the leaves must be; ``None`` takes the leaves as they come.
        on_internal_label: ``"other-leaf"`` gives an inner node that is a label a leaf of its own.
        on_multiple_parents: ``None`` takes the format's own way: ``"longest"`` for ``is-a``, else
            ``"error"``.
        virtual_root: Id of a root to add above several; ``nested``, ``chils`` and ``wide`` add
            ``root`` by themselves, the others refuse several roots.
        limits: Caps.

    Raises:
        HierarchyError: With every problem at once, each with its file and line.
        UsageError: An unknown format.
    """
    path = Path(path)
    if format == "auto":
        format = sniff_format(path, limits)
    if format == "json":
        tree = Hierarchy.from_json(read_text(path, limits), source=str(path), limits=limits)
        tree = replace(tree, name=name or tree.name)
        return tree if labels is None else _relabelled(tree, labels, on_internal_label, limits)
    if format not in _READERS:
        raise UsageError(
            f"unknown hierarchy format {format!r}", hint=f"one of auto, {', '.join(FORMATS)}"
        )
    reading = _READERS[format](path, limits)
    ids = resolve_ids(reading)
    own_labels = None if reading.labels is None else [ids[key] for key in reading.labels]
    default_parents: MultipleParents = "longest" if reading.longest_parent else "error"
    options = BuildOptions(
        on_multiple_parents=on_multiple_parents or default_parents,
        virtual_root=virtual_root or (_IMPLIED_ROOT if reading.implied_root else None),
        labels=labels if labels is not None else own_labels,
        on_internal_label=on_internal_label,
        limits=limits,
    )
    return Hierarchy.from_nodes(
        renamed(reading.nodes, ids),
        name=name or reading.name,
        options=options,
        ranks={rank: [ids[key] for key in keys] for rank, keys in reading.ranks.items()},
        log=reading.log,
    )


def _relabelled(
    tree: Hierarchy,
    labels: Collection[str],
    on_internal_label: InternalLabel,
    limits: HierarchyLimits,
) -> Hierarchy:
    options = BuildOptions(labels=labels, on_internal_label=on_internal_label, limits=limits)
    return Hierarchy.from_nodes(
        tree.to_nodes(),
        name=tree.name,
        options=options,
        ranks={rank.name: [tree.ids[i] for i in rank.nodes] for rank in tree.ranks},
        dropped_edges=tree.dropped_edges,
        provenance=dict(tree.provenance),
    )


def sniff_format(path: str | Path, limits: HierarchyLimits = DEFAULT_LIMITS) -> str:
    """Recognise a format; the table in :mod:`robustzs.hierarchy.formats` says how.

    Raises:
        HierarchyFormatError: None fits, or the file cannot be read.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if os.path.isdir(path):
        if os.path.isfile(path / BREEDS_EDGES):
            return "breeds"
    elif suffix in (".yaml", ".yml"):
        return "nested"
    elif suffix == ".json":
        return _sniff_json(path, limits)
    elif suffix in (".csv", ".tsv"):
        header = next(read_table(path, limits), (1, []))[1]
        return "edges" if is_edge_header(header) else "wide"
    else:
        first = read_text(path, limits).split(maxsplit=2)[:2]
        if len(first) == 2 and all(map(is_wnid, first)):
            return "is-a"
    raise HierarchyFormatError(
        f"{path}: no known hierarchy format", hint=f"name it: one of {', '.join(FORMATS)}"
    )


def _sniff_json(path: Path, limits: HierarchyLimits) -> str:
    outline = parse_outline(path, limits)
    if not isinstance(outline, Mapping):
        return "nested"
    marker = outline.get("format")
    if isinstance(marker, Scalar) and marker.text == FORMAT:
        return "json"
    flat = all(
        isinstance(value, Sequence)
        and value.items
        and all(isinstance(item, Scalar) for item in value.items)
        for _, value in outline.entries
    )
    own = outline.get(ATTRIBUTES_KEY) is not None
    return "chils" if flat and len(outline.entries) > 1 and not own else "nested"
