"""The hierarchy: a frozen tree over labels."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from robustzs.errors import (
    HierarchyError,
    HierarchyFormatError,
    HierarchyLimitError,
    UnknownNodeError,
)
from robustzs.hierarchy.build import BuildOptions, Node, arrange
from robustzs.hierarchy.limits import DEFAULT_LIMITS, HierarchyLimits
from robustzs.hierarchy.problems import ProblemLog
from robustzs.hierarchy.shape import IntArray, TreeShape, frozen
from robustzs.labels.rules import text_problem

if TYPE_CHECKING:
    from robustzs.labels.label_set import LabelSet


@dataclass(frozen=True)
class Rank:
    """A named level, such as ``genus``.

    Args:
        name: What people call it.
        nodes: Indices of its nodes, ascending.
    """

    name: str
    nodes: tuple[int, ...]


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Hierarchy(TreeShape):
    """A tree over labels; its topology and arithmetic are those of :class:`TreeShape`.

    Build one with :meth:`from_nodes`, :meth:`from_json` or
    :func:`robustzs.hierarchy.formats.read_hierarchy`; the constructor takes columns that are in
    depth-first order already. Two trees are equal when their digests are.

    Args:
        parent: int32 ``[n_nodes]`` in preorder, -1 for the root.
        name: What people call the tree.
        ids: Stable keys, index 0 is the root.
        names: For people.
        synsets: WordNet's names for the senses.
        glosses: Definitions.
        prompts: What the text encoder reads.
        aliases: Further names.
        hidden: bool ``[n_nodes]``, spacers that are never part of an answer; not the root.
        ranks: Named levels, coarse to fine.
        dropped_edges: ``(child, parent)`` ids of edges that a graph had and the tree does not.
        provenance: ``(key, text)`` pairs, sorted: sources, versions, licence notices.
    """

    name: str
    ids: tuple[str, ...]
    names: tuple[str, ...]
    synsets: tuple[str | None, ...]
    glosses: tuple[str | None, ...]
    prompts: tuple[str, ...]
    aliases: tuple[tuple[str, ...], ...]
    hidden: NDArray[np.bool_]
    ranks: tuple[Rank, ...] = ()
    dropped_edges: tuple[tuple[str, str], ...] = ()
    provenance: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "hidden", frozen(np.array(self.hidden, dtype=np.bool_)))
        columns = ("ids", "names", "synsets", "glosses", "prompts", "aliases", "hidden")
        lengths = {column: len(getattr(self, column)) for column in columns}
        if set(lengths.values()) != {len(self)} or len(self._index) != len(self):
            raise HierarchyError(
                f"hierarchy {self.name!r}: {len(self)} parents, {len(self._index)} distinct ids "
                f"and columns of {lengths} nodes",
                hint="give one value per node, and every node its own id",
            )
        if self.hidden[0] or self.hidden[self.leaf_nodes].any():
            raise HierarchyError(
                f"hierarchy {self.name!r} hides its root or a leaf",
                hint="only inner nodes below the root can be spacers",
            )

    # ---- construction ------------------------------------------------------------------------

    @classmethod
    def from_nodes(
        cls,
        nodes: Iterable[Node],
        *,
        name: str,
        options: BuildOptions | None = None,
        ranks: Mapping[str, Iterable[str]] | None = None,
        dropped_edges: Iterable[tuple[str, str]] = (),
        provenance: Mapping[str, str] | None = None,
        log: ProblemLog | None = None,
    ) -> Hierarchy:
        """Build a tree from nodes in any order.

        Args:
            nodes: Nodes; the same id again with another parent is a further edge.
            name: What people call the tree.
            options: Policies for what a tree leaves open, and limits.
            ranks: Named levels, coarse to fine: the ids of each one's nodes.
            dropped_edges: ``(child, parent)`` edges that the caller left out, kept for the record.
            provenance: Sources, versions, licence notices.
            log: Problems that the reader of a file met, reported together with the nodes' own.

        Raises:
            HierarchyError: With every problem of the nodes at once, by file and line where known.
        """
        log = log if log is not None else ProblemLog(f"hierarchy {name!r}")
        options = options or BuildOptions()
        _check_beside(name, list(ranks or ()), options.limits, log)
        arranged = arrange(nodes, options, log)
        index = {node.id: i for i, node in enumerate(arranged.nodes)}
        unknown = [i for ids in (ranks or {}).values() for i in ids if i not in index]
        if unknown:
            raise UnknownNodeError(f"hierarchy {name!r}: ranks name unknown nodes {unknown[:8]}")
        return cls(
            name=name,
            ids=tuple(node.id for node in arranged.nodes),
            names=tuple(node.name or node.id for node in arranged.nodes),
            parent=np.array(arranged.parent, dtype=np.int32),
            synsets=tuple(node.synset for node in arranged.nodes),
            glosses=tuple(node.gloss for node in arranged.nodes),
            prompts=tuple(node.prompt or node.name or node.id for node in arranged.nodes),
            aliases=tuple(node.aliases for node in arranged.nodes),
            hidden=np.array([node.hidden for node in arranged.nodes], dtype=np.bool_),
            ranks=tuple(
                Rank(rank, tuple(sorted({index[i] for i in ids})))
                for rank, ids in (ranks or {}).items()
            ),
            dropped_edges=tuple(sorted({*arranged.dropped_edges, *dropped_edges})),
            provenance=tuple(sorted((provenance or {}).items())),
        )

    @classmethod
    def from_json(
        cls, text: str | bytes, *, source: str = "", limits: HierarchyLimits = DEFAULT_LIMITS
    ) -> Hierarchy:
        """Read what :meth:`to_json` wrote, or a hand-written document of the published schema.

        Args:
            text: The document.
            source: Where it came from, for messages.
            limits: Caps.

        Raises:
            HierarchyFormatError: Not JSON, or not of the schema.
            HierarchyDigestError: The document's ``digest`` names another tree.
            HierarchyError: The nodes are not a tree.
        """
        from robustzs.hierarchy.document import parse_document

        return parse_document(text, source=source, limits=limits)

    def to_nodes(self) -> list[Node]:
        """The nodes in preorder, for :meth:`from_nodes`."""
        return [
            Node(
                id=self.ids[i],
                parent_id=self.ids[self.parent[i]] if i else None,
                name=self.names[i],
                synset=self.synsets[i],
                gloss=self.glosses[i],
                prompt=self.prompts[i],
                aliases=self.aliases[i],
                hidden=bool(self.hidden[i]),
            )
            for i in range(len(self))
        ]

    def to_json(self) -> str:
        """The published document, one node per line, with its digest."""
        from robustzs.hierarchy.document import render_document

        return render_document(self)

    @cached_property
    def digest(self) -> str:
        """Sha256 of the canonical JSON: every field that can change an answer, and the record."""
        from robustzs.hierarchy.document import canonical_json

        return hashlib.sha256(canonical_json(self)).hexdigest()

    def subtree(self, root: int) -> Hierarchy:
        """The tree below node ``root``, which becomes the root.

        Raises:
            UnknownNodeError: No such node.
        """
        from robustzs.hierarchy.reshape import subtree

        return subtree(self, root)

    def restrict(self, leaf_ids: Iterable[str], *, name: str | None = None) -> Hierarchy:
        """The tree over some of the leaves, without inner nodes that have a single child.

        The leaves keep their order in this tree; the root stays.

        Raises:
            LabelMismatchError: No ids, or some that are not leaves.
        """
        from robustzs.hierarchy.reshape import restrict

        return restrict(self, leaf_ids, name=name)

    def cut_top(self) -> Hierarchy:
        """The tree that starts at the deepest inner node above all leaves."""
        from robustzs.hierarchy.reshape import cut_top

        return cut_top(self)

    # ---- queries -------------------------------------------------------------------------------

    @property
    def leaf_ids(self) -> tuple[str, ...]:
        """Ids of the leaves, in leaf order."""
        return tuple(self.ids[i] for i in self.leaf_nodes)

    @property
    def labels(self) -> LabelSet:
        """The leaves as labels, in leaf order, which is the column order of logits."""
        from robustzs.labels.label import Label
        from robustzs.labels.label_set import LabelSet

        return LabelSet(
            tuple(
                Label(
                    id=self.ids[i],
                    name=self.names[i],
                    prompt=self.prompts[i],
                    aliases=self.aliases[i],
                    synset=self.synsets[i],
                )
                for i in self.leaf_nodes
            )
        )

    @cached_property
    def _index(self) -> dict[str, int]:
        return {node_id: i for i, node_id in enumerate(self.ids)}

    def index(self, node_id: str) -> int:
        """The node of that id.

        Raises:
            UnknownNodeError: No node has it.
        """
        try:
            return self._index[node_id]
        except KeyError:
            raise UnknownNodeError(
                f"hierarchy {self.name!r} has no node {node_id!r}",
                hint="see `robustzs hierarchy show`",
            ) from None

    def find(self, text: str) -> int:
        """The node that a person means: by id, else by synset, else by name in any case.

        Raises:
            UnknownNodeError: No node, or several, have that name.
        """
        if text in self._index:
            return self._index[text]
        if text in self.synsets:
            return self.synsets.index(text)
        wanted = text.casefold().replace("_", " ").strip()
        found = [i for i, name in enumerate(self.names) if name.casefold() == wanted]
        if len(found) == 1:
            return found[0]
        if not found:
            return self.index(text)
        raise UnknownNodeError(
            f"hierarchy {self.name!r} has {len(found)} nodes named {text!r}",
            hint="use an id: " + ", ".join(self.ids[i] for i in found[:8]),
        )

    def visible_children(self, node: int) -> tuple[int, ...]:
        """Children of ``node`` where each hidden one is replaced by its own visible children."""
        found: list[int] = []
        stack = [int(child) for child in reversed(self.children(node))]
        while stack:
            child = stack.pop()
            if self.hidden[child]:
                stack += [int(c) for c in reversed(self.children(child))]
            else:
                found.append(child)
        return tuple(found)

    def cut(self, level: int | str) -> IntArray:
        """The node that answers for each leaf at a level: int32 ``[n_leaves]``.

        For a depth: the leaf's ancestor there, or the leaf itself where its path is shorter. For a
        named rank: the first node from the root that has this rank or a finer one, or the leaf
        itself where its path has none. The distinct nodes cut every path exactly once.

        Raises:
            UnknownNodeError: No rank has that name.
            UsageError: A negative depth.
        """
        if not isinstance(level, str):
            return self.ancestor_at_depth(level)
        names = [rank.name for rank in self.ranks]
        if level not in names:
            raise UnknownNodeError(
                f"hierarchy {self.name!r} has no rank {level!r}",
                hint=f"its ranks: {', '.join(names)}" if names else "it names none: use a depth",
            )
        at = np.array(self.leaf_nodes, dtype=np.int32)
        for rank in reversed(self.ranks[names.index(level) :]):  # fine to coarse: coarse wins
            for node in rank.nodes:
                at[self.leaf_start[node] : self.leaf_end[node]] = node
        return at

    # ---- value semantics -----------------------------------------------------------------------

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Hierarchy) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        return f"Hierarchy({self.name!r}, {self.n_nodes} nodes, {self.n_leaves} leaves)"

    def __reduce__(self) -> tuple[Any, ...]:  # rebuilt, so that arrays stay read-only
        return partial(
            Hierarchy, **{f.name: getattr(self, f.name) for f in fields(self) if f.init}
        ), ()


def _check_beside(
    name: str, ranks: Sequence[str], limits: HierarchyLimits, log: ProblemLog
) -> None:
    """Log what a document may not hold beside its nodes: such a tree could not be read again."""
    for what, text in (("its name", name), *(("the name of a rank", rank) for rank in ranks)):
        problem = text_problem(text, what, limits.max_text)
        if problem is not None:
            kind = HierarchyLimitError if len(text) > limits.max_text else HierarchyFormatError
            log.add(kind, problem)
    if len(ranks) > limits.max_ranks:
        log.add(HierarchyLimitError, f"{len(ranks)} ranks, the limit is {limits.max_ranks}")
