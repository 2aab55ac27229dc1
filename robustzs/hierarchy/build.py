"""From nodes in any order to a tree in depth-first order, or to a list of everything wrong."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace
from typing import Literal

from robustzs.errors import (
    CycleError,
    HierarchyFormatError,
    HierarchyLimitError,
    LabelMismatchError,
    MultipleRootsError,
)
from robustzs.hierarchy.limits import DEFAULT_LIMITS, HierarchyLimits
from robustzs.hierarchy.problems import ProblemLog
from robustzs.labels.rules import id_problem, text_problem

MultipleParents = Literal["error", "longest"]
InternalLabel = Literal["error", "other-leaf"]
ChildOrder = Literal["given", "id"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Node:
    """One node as written down; the same id again with another parent is a further edge to it.

    Args:
        id: Stable key, for code.
        parent_id: ``None`` for the root.
        name: For people; the id when it is ``None``.
        synset: WordNet's name for the sense, such as ``dog.n.01``.
        gloss: WordNet's or the author's definition.
        prompt: What the text encoder reads; the name when it is ``None``.
        aliases: Further names.
        hidden: A spacer that keeps depths aligned and is never part of an answer.
        where: ``file:line`` for messages.
    """

    id: str
    parent_id: str | None = None
    name: str | None = None
    synset: str | None = None
    gloss: str | None = None
    prompt: str | None = None
    aliases: tuple[str, ...] = ()
    hidden: bool = False
    where: str | None = None


@dataclass(frozen=True, kw_only=True)
class BuildOptions:
    """How to settle what a tree leaves open.

    Args:
        order: Children as first given, or sorted by id.
        on_multiple_parents: ``"longest"`` keeps the parent with the longest path to the root (ties
            go to the lowest id) and records the other edges as dropped.
        virtual_root: Id of a root to add above several roots; ``None`` refuses them.
        labels: Ids that the leaves must be; ``None`` takes the leaves as they come.
        on_internal_label: ``"other-leaf"`` gives an inner node that is a label a child
            ``<id>--other``, named ``<name> (other)``, which answers for it.
        limits: Caps.
    """

    order: ChildOrder = "given"
    on_multiple_parents: MultipleParents = "error"
    virtual_root: str | None = None
    labels: Collection[str] | None = None
    on_internal_label: InternalLabel = "error"
    limits: HierarchyLimits = DEFAULT_LIMITS


@dataclass(frozen=True)
class Arranged:
    """Nodes depth-first, parents before children; ``parent[i]`` is an index, -1 for the root."""

    nodes: tuple[Node, ...]
    parent: tuple[int, ...]
    dropped_edges: tuple[tuple[str, str], ...]


@dataclass
class _Draft:
    node: Node
    parents: dict[str, str | None] = field(default_factory=dict)  # id -> where it was said


def arrange(nodes: Iterable[Node], options: BuildOptions, log: ProblemLog) -> Arranged:
    """Order ``nodes`` depth-first.

    Args:
        nodes: In any order; parents may come after children.
        options: Policies and limits.
        log: Names what is being built, and may hold problems already; all are reported together.

    Raises:
        HierarchyError: With every problem; see :class:`~robustzs.hierarchy.problems.ProblemLog`.
    """
    drafts = _collect(nodes, options.limits, log)
    _check_parents(drafts, log)
    order = _topological(drafts, log)
    if drafts:
        _settle_root(drafts, order, options, log)
    dropped = _settle_parents(drafts, order, options, log)
    if options.labels is not None:
        _settle_labels(drafts, options, log)
    log.raise_if_any()
    ordered, parent = _depth_first(drafts, options)
    _check_depth(ordered, parent, options.limits, log)
    log.raise_if_any()
    return Arranged(tuple(ordered), tuple(parent), dropped)


def _collect(nodes: Iterable[Node], limits: HierarchyLimits, log: ProblemLog) -> dict[str, _Draft]:
    drafts: dict[str, _Draft] = {}
    for node in nodes:
        draft = drafts.get(node.id)
        if draft is None:
            if len(drafts) >= limits.max_nodes:
                log.add(HierarchyLimitError, f"more than {limits.max_nodes} nodes", node.where)
                break
            _check_text(node, limits, log)
            draft = drafts[node.id] = _Draft(node)
        else:
            _merge(draft, node, log)
            if len(draft.node.aliases) > limits.max_aliases:
                _check_text(draft.node, limits, log)
        if node.parent_id is not None:
            draft.parents.setdefault(node.parent_id, node.where)
    if not drafts and not log:
        log.add(HierarchyFormatError, "no nodes", hint="give at least one label")
    return drafts


def _check_text(node: Node, limits: HierarchyLimits, log: ProblemLog) -> None:
    owner = "" if len(node.id) > limits.max_text else f" of {node.id!r}"
    texts = [
        ("id", node.id, limits.max_text),
        *((f"alias{owner}", alias, limits.max_text) for alias in node.aliases),
        *(
            (f"{what}{owner}", text, cap)
            for what, text, cap in (
                ("name", node.name, limits.max_text),
                ("synset", node.synset, limits.max_text),
                ("prompt", node.prompt, limits.max_text),
                ("gloss", node.gloss, limits.max_gloss),
            )
            if text is not None
        ),
    ]
    for what, text, cap in texts:
        problem = text_problem(text, what, cap)
        if problem is None and not text.strip():
            problem = f"{what} is blank"
        if problem is None and what == "id":
            problem = id_problem(text)
        if problem is not None:
            kind = HierarchyLimitError if len(text) > cap else HierarchyFormatError
            log.add(kind, problem, node.where)
    if len(node.aliases) > limits.max_aliases:
        log.add(
            HierarchyLimitError,
            f"{node.id!r} has {len(node.aliases)} aliases, the limit is {limits.max_aliases}",
            node.where,
        )


def _merge(draft: _Draft, again: Node, log: ProblemLog) -> None:
    first = draft.node
    same_parent = (
        again.parent_id in draft.parents if again.parent_id is not None else not draft.parents
    )
    if same_parent:
        place = f"under {again.parent_id!r}" if again.parent_id is not None else "as a root"
        seen = f", first at {first.where}" if first.where else ""
        log.add(HierarchyFormatError, f"{again.id!r} is listed twice {place}{seen}", again.where)
        return
    merged = {}
    for what in ("name", "synset", "gloss", "prompt", "aliases"):
        old, new = getattr(first, what), getattr(again, what)
        if old and new and old != new:
            log.add(
                HierarchyFormatError, f"{again.id!r} has two {what}s: {old!r}, {new!r}", again.where
            )
        merged[what] = old or new
    draft.node = replace(first, hidden=first.hidden or again.hidden, **merged)


def _check_parents(drafts: dict[str, _Draft], log: ProblemLog) -> None:
    for draft in drafts.values():
        for parent, where in draft.parents.items():
            if parent not in drafts:
                log.add(
                    HierarchyFormatError,
                    f"parent {parent!r} of {draft.node.id!r} is not a node",
                    where,
                )


def _topological(drafts: dict[str, _Draft], log: ProblemLog) -> list[str]:
    """Ids with parents before children; each cycle is noted once and its nodes are left out."""
    children: dict[str, list[str]] = {node_id: [] for node_id in drafts}
    waiting: dict[str, int] = {}
    for node_id, draft in drafts.items():
        known = [parent for parent in draft.parents if parent in drafts]
        waiting[node_id] = len(known)
        for parent in known:
            children[parent].append(node_id)
    order = [node_id for node_id, n in waiting.items() if n == 0]
    for node_id in order:  # grows while it is walked
        for child in children[node_id]:
            waiting[child] -= 1
            if waiting[child] == 0:
                order.append(child)
    seen = set(order)
    for start in drafts:
        trail: list[str] = []
        node_id = start
        while node_id not in seen:
            seen.add(node_id)
            trail.append(node_id)
            stuck = (p for p in drafts[node_id].parents if p in drafts and waiting[p] > 0)
            node_id = next(stuck)
        if node_id in trail:
            cycle = [*trail[trail.index(node_id) :], node_id]
            shown = " -> ".join(
                repr(c) for c in (cycle if len(cycle) <= 9 else [*cycle[:8], "..."])
            )
            where = drafts[node_id].parents[cycle[1]]
            log.add(CycleError, f"a node is its own ancestor: {shown}", where)
    return order


def _settle_root(
    drafts: dict[str, _Draft], order: list[str], options: BuildOptions, log: ProblemLog
) -> None:
    roots = [node_id for node_id, draft in drafts.items() if not draft.parents]
    if len(roots) <= 1:
        return
    root = options.virtual_root
    if root is None:
        shown = ", ".join(repr(r) for r in roots[:8]) + (", ..." if len(roots) > 8 else "")
        log.add(
            MultipleRootsError,
            f"{len(roots)} roots: {shown}",
            drafts[roots[1]].node.where,
            hint="name a parent for all but one, or one new node as the parent of all",
        )
    elif root in drafts:
        log.add(
            HierarchyFormatError, f"the virtual root {root!r} is a node already", hint="rename it"
        )
    else:
        for node_id in roots:
            drafts[node_id].parents[root] = None
        drafts[root] = _Draft(Node(id=root))
        order.insert(0, root)


def _settle_parents(
    drafts: dict[str, _Draft], order: list[str], options: BuildOptions, log: ProblemLog
) -> tuple[tuple[str, str], ...]:
    """Leave every node one parent; return the edges ``(child, parent)`` that were dropped."""
    depth: dict[str, int] = {}
    dropped: list[tuple[str, str]] = []
    for node_id in order:
        parents = drafts[node_id].parents
        known = sorted(p for p in parents if p in depth)
        depth[node_id] = max((depth[p] + 1 for p in known), default=0)
        if len(parents) < 2:
            continue
        if options.on_multiple_parents == "error":
            shown = ", ".join(f"{p!r}" + (f" ({w})" if w else "") for p, w in parents.items())
            log.add(
                HierarchyFormatError,
                f"{node_id!r} has {len(parents)} parents: {shown}",
                list(parents.values())[1],
                hint="keep one, or in Python read the tree with on_multiple_parents='longest'",
            )
        elif known:
            best = next(p for p in known if depth[p] + 1 == depth[node_id])
            dropped += [(node_id, p) for p in sorted(parents) if p != best]
            drafts[node_id].parents = {best: parents[best]}
    return tuple(sorted(dropped))


def _settle_labels(drafts: dict[str, _Draft], options: BuildOptions, log: ProblemLog) -> None:
    labels = dict.fromkeys(options.labels or ())
    inner = {parent for draft in drafts.values() for parent in draft.parents}
    for label in labels:
        if label not in drafts:
            log.add(LabelMismatchError, f"the label {label!r} is not in the tree")
        elif label in inner and options.on_internal_label == "error":
            log.add(
                LabelMismatchError,
                f"the label {label!r} is an inner node, not a leaf",
                drafts[label].node.where,
                hint="leave it out, or in Python read the tree with on_internal_label='other-leaf'",
            )
        elif label in inner:
            _add_other_leaf(drafts, label, log)
    barren = {node_id for node_id in drafts if node_id not in labels and node_id not in inner}
    barren -= {f"{label}--other" for label in labels}
    for node_id, draft in drafts.items():
        if node_id in barren:
            log.add(LabelMismatchError, f"the leaf {node_id!r} is not a label", draft.node.where)
    _note_empty_subtrees(drafts, inner, set(labels), log)


def _add_other_leaf(drafts: dict[str, _Draft], label: str, log: ProblemLog) -> None:
    node, other = drafts[label].node, f"{label}--other"
    if other in drafts:
        log.add(HierarchyFormatError, f"{other!r} is a node already", drafts[other].node.where)
        return
    name = node.name or node.id
    drafts[other] = _Draft(
        Node(id=other, name=f"{name} (other)", prompt=node.prompt or name, where=node.where),
        {label: node.where},
    )


def _note_empty_subtrees(
    drafts: dict[str, _Draft], inner: set[str], labels: set[str], log: ProblemLog
) -> None:
    fertile: set[str] = set()
    for label in labels & drafts.keys():
        above = [label]
        while above:
            node_id = above.pop()
            if node_id in drafts and node_id not in fertile:
                fertile.add(node_id)
                above.extend(drafts[node_id].parents)
    for node_id, draft in drafts.items():
        topmost = fertile.issuperset(draft.parents)
        if node_id in inner and node_id not in fertile and topmost:
            log.add(
                LabelMismatchError,
                f"the subtree of {node_id!r} holds no label",
                draft.node.where,
            )


def _depth_first(drafts: dict[str, _Draft], options: BuildOptions) -> tuple[list[Node], list[int]]:
    children: dict[str, list[str]] = {node_id: [] for node_id in drafts}
    root = ""
    for node_id, draft in drafts.items():
        if draft.parents:
            children[next(iter(draft.parents))].append(node_id)
        else:
            root = node_id
    nodes: list[Node] = []
    parent: list[int] = []
    stack = [(root, -1)]
    while stack:
        node_id, above = stack.pop()
        below = children[node_id] if options.order == "given" else sorted(children[node_id])
        stack += [(child, len(nodes)) for child in reversed(below)]
        nodes.append(drafts[node_id].node)
        parent.append(above)
    return nodes, parent


def _check_depth(
    nodes: list[Node], parent: list[int], limits: HierarchyLimits, log: ProblemLog
) -> None:
    depth = [0] * len(nodes)
    for i in range(1, len(nodes)):
        depth[i] = depth[parent[i]] + 1
    deepest = max(range(len(nodes)), key=depth.__getitem__)
    if depth[deepest] > limits.max_depth:
        log.add(
            HierarchyLimitError,
            f"{nodes[deepest].id!r} has depth {depth[deepest]}; at most {limits.max_depth}",
            nodes[deepest].where,
        )
