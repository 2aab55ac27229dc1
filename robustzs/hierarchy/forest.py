"""A forest: several trees over the same labels."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from robustzs.errors import HierarchyError, LabelMismatchError
from robustzs.hierarchy.shape import IntArray, frozen
from robustzs.hierarchy.tree import Hierarchy

if TYPE_CHECKING:
    from robustzs.labels.label_set import LabelSet


@dataclass(frozen=True, eq=False, repr=False)
class Forest:
    """Trees that share their leaves, by id, in whatever order each one has them.

    The labels and the columns of logits are those of the first tree.

    Args:
        trees: At least one; names are distinct, because answers are told apart by them.

    Raises:
        LabelMismatchError: Leaves that not all trees have.
        HierarchyError: No trees, or two of one name.
    """

    trees: tuple[Hierarchy, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "trees", tuple(self.trees))
        if not self.trees:
            raise HierarchyError("a forest needs at least one tree")
        names = [tree.name for tree in self.trees]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise HierarchyError(
                f"several trees of the forest are named {twice}", hint="rename all but one"
            )
        problems = [self._difference(tree) for tree in self.trees[1:]]
        found = [problem for problem in problems if problem]
        if found:
            raise LabelMismatchError(
                "; ".join(found),
                hint="the trees of a forest have the same leaves: add these, or take them out",
                problems=found,
            )

    def _difference(self, tree: Hierarchy) -> str:
        first = self.trees[0]
        ours, theirs = set(first.leaf_ids), set(tree.leaf_ids)
        return "; ".join(
            f"{len(only)} leaves only in {name!r}: {', '.join(sorted(only)[:8])}"
            + (", ..." if len(only) > 8 else "")
            for name, only in ((first.name, ours - theirs), (tree.name, theirs - ours))
            if only
        )

    @property
    def n_leaves(self) -> int:
        """Leaves of each tree."""
        return self.trees[0].n_leaves

    @property
    def labels(self) -> LabelSet:
        """The leaves in the order of the first tree, which is the column order of logits."""
        return self.trees[0].labels

    @cached_property
    def leaf_order(self) -> tuple[IntArray, ...]:
        """For each tree, the first tree's column of each of its leaves: int32 ``[n_leaves]``.

        ``leaf_probs[:, forest.leaf_order[k]]`` are the columns in the order of tree ``k``.
        """
        column = {leaf_id: j for j, leaf_id in enumerate(self.trees[0].leaf_ids)}
        return tuple(
            frozen(np.array([column[leaf_id] for leaf_id in tree.leaf_ids], dtype=np.int32))
            for tree in self.trees
        )

    @cached_property
    def digest(self) -> str:
        """Sha256 of the trees' digests, in order."""
        digests = json.dumps([tree.digest for tree in self.trees], separators=(",", ":"))
        return hashlib.sha256(digests.encode("ascii")).hexdigest()

    def __len__(self) -> int:
        return len(self.trees)

    def __iter__(self) -> Iterator[Hierarchy]:
        return iter(self.trees)

    def __getitem__(self, k: int) -> Hierarchy:
        return self.trees[k]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Forest) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        return f"Forest({', '.join(map(repr, self.trees))})"
