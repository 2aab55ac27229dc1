"""The cut of a tree at a depth, in torch: leaf logits to node log-masses, right labels to nodes.

A victim's logits stand in the order of its labels; a tree has its leaves in its own order. The
nodes of a cut cover every leaf once, each a range of leaves, so that sums over nodes are sums over
neighbouring columns.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from robustzs.errors import LabelMismatchError, UsageError
from robustzs.hierarchy.tree import Hierarchy
from robustzs.labels import LabelSet
from robustzs.metrics.verdicts import cut_at

IndexArray = npt.NDArray[np.int64]
_SHARES = (0.25, 0.5, 0.75)
_SHOWN = 8


def choose_depths(tree: Hierarchy, depths: str | Sequence[int] | None = None) -> tuple[int, ...]:
    """The depths to ask at, ascending, between the root and the deepest leaf.

    Args:
        tree: The tree.
        depths: Numbers, or as text: ``4,8`` or ``all``. ``None``: a quarter, half and three
            quarters of the tree's height.

    Raises:
        UsageError: No such depth. The deepest one is flat top-1, which is asked in any case.
    """
    height = int(tree.depth.max())
    if depths is None:
        depths = [round(share * height) for share in _SHARES]
        return tuple(sorted({depth for depth in depths if 0 < depth < height}))
    if isinstance(depths, str):
        if depths.strip().casefold() == "all":
            return tuple(range(1, height))
        parts = [part.strip() for part in depths.split(",")]
        if not all(part.isascii() and part.isdecimal() for part in parts):
            raise UsageError(f"{depths!r} are no depths", hint="write 4,8 or all")
        depths = [int(part) for part in parts]
    for depth in depths:
        if not 0 < depth < height:
            raise UsageError(
                f"depth {depth} is not between the root (0) and the leaves ({height})",
                hint=f"the tree {tree.name!r} can be asked at 1 to {height - 1}"
                if height > 1
                else "a flat tree has no depths in between: leave them out",
            )
    return tuple(sorted(set(depths)))


def leaf_columns(tree: Hierarchy, labels: LabelSet) -> IndexArray:
    """The column of each leaf of a tree in logits over labels, ``[n_leaves]``; ids are compared.

    Raises:
        LabelMismatchError: The leaves are not the labels.
    """
    column = {label.id: place for place, label in enumerate(labels)}
    ours, theirs = set(tree.leaf_ids), set(column)
    if ours != theirs:
        shown = ", ".join(sorted(ours ^ theirs)[:_SHOWN])
        raise LabelMismatchError(
            f"{len(ours - theirs)} leaves of the tree {tree.name!r} are no labels, and "
            f"{len(theirs - ours)} labels no leaves, such as {shown}",
            hint="use the tree over these labels, or the tree's own labels",
        )
    return np.array([column[leaf_id] for leaf_id in tree.leaf_ids], np.int64)


class Cut:
    """The nodes of a tree at a depth, and the leaves above it.

    Attributes:
        tree: The tree.
        depth: Edges from the root.
        nodes: Node indices, ascending, ``[n]``; they cover every leaf once.

    Args:
        tree: The tree.
        columns: Of each leaf, from :func:`leaf_columns`.
        depth: Edges from the root; the height of the tree gives the leaves.

    Raises:
        UsageError: The cut has a single node, about which nothing can be asked.
    """

    def __init__(self, tree: Hierarchy, columns: IndexArray, depth: int) -> None:
        self.tree = tree
        self.depth = depth
        self.nodes = cut_at(tree, depth)
        if len(self.nodes) < 2:
            raise UsageError(
                f"the tree {tree.name!r} has a single node at depth {depth}",
                hint="ask where it branches",
            )
        self._columns = torch.from_numpy(columns)
        self._starts = torch.from_numpy(tree.leaf_start[self.nodes].astype(np.int64))
        self._ends = torch.from_numpy(tree.leaf_end[self.nodes].astype(np.int64))

    @property
    def prompts(self) -> list[str]:
        """What the text tower reads of each node."""
        return [self.tree.prompts[node] for node in self.nodes]

    def log_masses(self, logits: torch.Tensor, temperature: float = 1.0) -> torch.Tensor:
        """Log-probability of every node: ``log of the sum of softmax(logits / temperature)``.

        Summed in logarithms, each node from its own largest logit, so that small masses keep value
        and gradient: :meth:`Hierarchy.node_probs` in torch.

        Args:
            logits: ``[B, C]`` in the labels' order, before temperature.
            temperature: As deployed.

        Returns:
            ``[B, n]``.
        """
        columns = self._columns.to(logits.device)
        sizes = (self._ends - self._starts).to(logits.device)
        leaves = (logits / temperature).log_softmax(dim=1).T[columns]
        with torch.no_grad():
            top = torch.segment_reduce(leaves.detach(), "max", lengths=sizes, axis=0)
        above = leaves - top.repeat_interleave(sizes, dim=0)
        sums = torch.segment_reduce(above.exp(), "sum", lengths=sizes, axis=0)
        return (sums.log() + top).T

    def right(self, right: torch.Tensor) -> torch.Tensor:
        """Which nodes are right, bool ``[B, n]``: those that hold a right label.

        For a label above the depth these are all nodes below it, for any other the one node on its
        path: what :func:`robustzs.metrics.verdicts.is_right` says.

        Args:
            right: Right labels, bool ``[B, C]``.
        """
        leaves = right[:, self._columns.to(right.device)].to(torch.int32)
        below = torch.nn.functional.pad(leaves.cumsum(dim=1), (1, 0))
        return below[:, self._ends.to(right.device)] > below[:, self._starts.to(right.device)]
