"""What a reader found in a file, before it is a tree."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from robustzs.hierarchy.build import Node
from robustzs.hierarchy.problems import ProblemLog
from robustzs.labels import rules


@dataclass
class Reading:
    """Nodes keyed by the text of the file.

    Args:
        name: The tree's name.
        log: What is wrong so far.
        nodes: ``id`` and ``parent_id`` are keys: ids already if in ``ids``, else text.
        ids: Keys that are final ids.
        ranks: Named levels, coarse to fine: keys of each one's nodes.
        labels: Keys that must be leaves; ``None`` when the file does not say.
        implied_root: Several tops are meant as they stand, so a root is added above them.
        longest_parent: The format is a graph by nature: keep the longest path by default.
    """

    name: str
    log: ProblemLog
    nodes: list[Node] = field(default_factory=list)
    ids: set[str] = field(default_factory=set)
    ranks: dict[str, list[str]] = field(default_factory=dict)
    labels: list[str] | None = None
    implied_root: bool = False
    longest_parent: bool = False


def new_reading(path: Path) -> Reading:
    """An empty reading, named after the file."""
    return Reading(name=path.stem, log=ProblemLog(str(path)))


def resolve_ids(reading: Reading) -> dict[str, str]:
    """The final id of every key: itself if it is one, a wnid, or the slug of its text.

    Leaves get the ids that :class:`~robustzs.labels.label_set.LabelSet` gives the same names, so
    that a list of names fits a tree of names.
    """
    parents = {node.parent_id for node in reading.nodes}
    ids: dict[str, str] = {}
    leaves: list[str] = []
    inner: list[str] = []
    for node in reading.nodes:
        key = node.id
        if key in ids:
            continue
        ids[key] = key
        if key not in reading.ids and not rules.is_wnid(key):
            if node.synset is not None and rules.is_wnid(node.synset):
                ids[key] = node.synset
            else:
                (inner if key in parents else leaves).append(key)
    waiting = {*leaves, *inner}
    taken = {final for key, final in ids.items() if key not in waiting}
    for group in (leaves, inner):
        slugs = rules.unique_slugs([(key, "") for key in group], taken)
        ids |= dict(zip(group, slugs, strict=True))
        taken |= set(slugs)
    return ids


def renamed(nodes: Iterable[Node], ids: dict[str, str]) -> list[Node]:
    """The nodes under their final ids; a parent that is no node keeps its key, to be reported."""
    return [
        replace(
            node,
            id=ids[node.id],
            parent_id=None if node.parent_id is None else ids.get(node.parent_id, node.parent_id),
            name=node.name if node.name is not None else node.id,
        )
        for node in nodes
    ]


def with_implied_parents(nodes: list[Node]) -> list[Node]:
    """The nodes, preceded by those that are only ever named as a parent."""
    named = {node.id for node in nodes}
    implied: dict[str, Node] = {}
    for node in nodes:
        if node.parent_id is not None and node.parent_id not in named:
            implied.setdefault(node.parent_id, Node(id=node.parent_id, where=node.where))
    return [*implied.values(), *nodes]
