"""Edge lists as published with ImageNet and with BREEDS."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from robustzs.errors import HierarchyFormatError
from robustzs.hierarchy.build import Node
from robustzs.hierarchy.formats.json_outline import parse_json
from robustzs.hierarchy.formats.outline import Scalar, Sequence
from robustzs.hierarchy.formats.reading import Reading, new_reading, with_implied_parents
from robustzs.hierarchy.formats.source import read_text
from robustzs.hierarchy.limits import HierarchyLimits
from robustzs.labels.rules import tidy

BREEDS_EDGES = "class_hierarchy.txt"
_BREEDS_NAMES = "node_names.txt"
_BREEDS_CLASSES = "dataset_class_info.json"
_SPACER = re.compile(r"dummy\d+")


def read_is_a(path: Path, limits: HierarchyLimits) -> Reading:
    """Read ``parent child`` per line, as in ImageNet's ``wordnet.is_a.txt``.

    Repeated lines count once. The list is a graph by nature, so the longest path to the root wins
    unless told otherwise. Ids are all it knows: names come from the noun index, if needed.
    """
    reading = new_reading(path)
    reading.longest_parent = True
    reading.nodes = with_implied_parents(_edges(path, limits, reading))
    reading.ids = {node.id for node in reading.nodes}
    return reading


def _edges(path: Path, limits: HierarchyLimits, reading: Reading) -> list[Node]:
    edges: dict[tuple[str, str], Node] = {}
    for line, text in enumerate(read_text(path, limits).splitlines(), start=1):
        words = text.split()
        if not words:
            continue
        where = f"{path}:{line}"
        if len(words) != 2:
            message = f"'parent child' expected, found {len(words)} words"
            reading.log.add(HierarchyFormatError, message, where)
            continue
        parent, child = words
        edges.setdefault((parent, child), Node(id=child, parent_id=parent, where=where))
    return list(edges.values())


def read_breeds(folder: Path, limits: HierarchyLimits) -> Reading:
    """Read a BREEDS folder.

    ``class_hierarchy.txt`` holds ``parent child`` lines, ``node_names.txt`` (tab) a name per node,
    and ``dataset_class_info.json``, if it is there, ``[index, wnid, "name, synonym, ..."]`` per
    class: every leaf must be a class, and further classes are ignored, since the published tree
    covers 890 of 1000. Spacers keep depths aligned and are hidden: a ``dummyNN`` that has no name
    of its own, or a single child; the other ones (``facial accessories``) are groups like any.
    """
    path = folder / BREEDS_EDGES
    reading = new_reading(folder)
    nodes = with_implied_parents(_edges(path, limits, reading))
    names = _breeds_names(folder / _BREEDS_NAMES, limits, reading)
    classes: dict[str, list[str]] = {}
    if (folder / _BREEDS_CLASSES).exists():
        classes = _breeds_classes(folder / _BREEDS_CLASSES, limits, reading)
    n_children = Counter(node.parent_id for node in nodes)
    for node in nodes:
        texts = classes.get(node.id) or [names.get(node.id, node.id)]
        if classes and not n_children[node.id] and node.id not in classes:
            message = f"the leaf {node.id!r} is not in {_BREEDS_CLASSES}"
            reading.log.add(HierarchyFormatError, message, node.where)
        reading.nodes.append(
            Node(
                id=node.id,
                parent_id=node.parent_id,
                name=texts[0],
                aliases=tuple(dict.fromkeys(texts[1:])),
                hidden=_SPACER.fullmatch(node.id) is not None
                and (texts[0] == node.id or n_children[node.id] == 1),
                where=node.where,
            )
        )
    reading.ids = {node.id for node in reading.nodes}
    return reading


def _breeds_names(path: Path, limits: HierarchyLimits, reading: Reading) -> dict[str, str]:
    names: dict[str, str] = {}
    for line, text in enumerate(read_text(path, limits).splitlines(), start=1):
        node_id, tab, name = text.partition("\t")
        if tab and tidy(node_id) and tidy(name) and tidy(node_id) not in names:
            names[tidy(node_id)] = tidy(name)
        elif text.strip():
            message = "'id<tab>name' expected, each id once"
            reading.log.add(HierarchyFormatError, message, f"{path}:{line}")
    return names


def _breeds_classes(path: Path, limits: HierarchyLimits, reading: Reading) -> dict[str, list[str]]:
    outline = parse_json(read_text(path, limits), path, max_nesting=4, max_items=limits.max_nodes)
    classes: dict[str, list[str]] = {}
    for row in outline.items if isinstance(outline, Sequence) else [outline]:
        cells = (
            [item.text for item in row.items if isinstance(item, Scalar)]
            if isinstance(row, Sequence)
            else []
        )
        if len(cells) != 3 or not cells[1] or not cells[2] or cells[1] in classes:
            message = "[index, wnid, name] expected, each wnid once"
            reading.log.add(HierarchyFormatError, message, f"{path}:{row.line}")
            continue
        classes[cells[1]] = [text for text in map(tidy, cells[2].split(",")) if text]
    return classes
