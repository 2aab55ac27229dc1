"""What the tests of file formats share: a tree of eight animals and cars, and what to read off."""

from __future__ import annotations

from pathlib import Path

import pytest

from robustzs.errors import HierarchyError
from robustzs.hierarchy.formats import read_hierarchy
from robustzs.hierarchy.tree import Hierarchy

ANIMALS = {
    "vehicle": "entity",
    "car": "vehicle",
    "bus": "vehicle",
    "animal": "entity",
    "dog": "animal",
    "poodle": "dog",
    "husky": "dog",
    "cat": "animal",
}


def parents(tree: Hierarchy) -> dict[str, str]:
    return {tree.ids[i]: tree.ids[tree.parent[i]] for i in range(1, len(tree))}


def problems_of(path: Path, **options: object) -> str:
    with pytest.raises(HierarchyError) as caught:
        read_hierarchy(path, **options)
    return "\n".join(caught.value.problems).replace(str(path), path.name)
