"""What a document of a hierarchy may hold beside its nodes, which ``build`` checks.

Counts come before the models: a validator lists every one of a million wrong values.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from robustzs.errors import HierarchyFormatError, HierarchyLimitError
from robustzs.hierarchy.limits import HierarchyLimits
from robustzs.hierarchy.problems import ProblemLog
from robustzs.labels.rules import text_problem

if TYPE_CHECKING:
    from robustzs.hierarchy.document import HierarchyDocument

_MAX_KEYS = 32  # of one object; the largest has eight


def check_counts(raw: Any, limits: HierarchyLimits, log: ProblemLog) -> None:
    """Refuse a document with more of anything than the limits allow, whatever else is wrong.

    Args:
        raw: What ``json.loads`` gave.
        limits: Caps.
        log: Names the document.

    Raises:
        HierarchyLimitError: Naming the first that is too many.
    """
    for what, count, limit in _counts(raw, limits):
        if count > limit:
            log.add(HierarchyLimitError, f"{count} {what}, the limit is {limit}")
            log.raise_if_any()


def check_texts(document: HierarchyDocument, limits: HierarchyLimits, log: ProblemLog) -> None:
    """Log what is wrong with the texts that do not belong to a node.

    Args:
        document: Of the right form.
        limits: Caps.
        log: Takes the problems.
    """
    texts = [("name", document.name, limits.max_text)]
    texts += [("name of a rank", rank.name, limits.max_text) for rank in document.ranks]
    for edge in document.dropped_edges:
        texts += [("id in dropped_edges", end, limits.max_text) for end in edge]
    for what, text, cap in texts:
        problem = text_problem(text, what, cap)
        if problem is not None:
            kind = HierarchyLimitError if len(text) > cap else HierarchyFormatError
            log.add(kind, problem)
    for key, value in document.provenance.items():
        if len(key) > limits.max_text or len(value) > limits.max_gloss:
            log.add(
                HierarchyLimitError,
                f"provenance {key[:40]!r} has {len(key)} + {len(value)} characters, the limits are "
                f"{limits.max_text} and {limits.max_gloss}",
            )
        elif not _is_unicode(key + value):
            # Licence notices have several lines, so control characters are let through.
            log.add(HierarchyFormatError, f"provenance {key[:40]!r} contains a lone surrogate")


def _counts(raw: Any, limits: HierarchyLimits) -> Iterator[tuple[str, int, int]]:
    if not isinstance(raw, dict):
        return
    yield "keys", len(raw), _MAX_KEYS
    yield "nodes", _length(raw, "nodes", list), limits.max_nodes
    yield "ranks", _length(raw, "ranks", list), limits.max_ranks
    yield "dropped edges", _length(raw, "dropped_edges", list), 4 * limits.max_nodes
    yield "entries in provenance", _length(raw, "provenance", dict), limits.max_provenance
    for name, inner, limit in (
        ("nodes", "aliases", limits.max_aliases),
        ("ranks", "nodes", limits.max_nodes),
    ):
        in_ranks = 0
        for item in _items(raw, name):
            if isinstance(item, dict):
                yield f"keys in one of {name}", len(item), _MAX_KEYS
                yield f"{inner} in one of {name}", _length(item, inner, list), limit
                in_ranks += _length(item, inner, list)
        if name == "ranks":
            yield "nodes in ranks", in_ranks, limits.max_nodes
    for edge in _items(raw, "dropped_edges"):
        if isinstance(edge, list):
            yield "ids in one of dropped_edges", len(edge), _MAX_KEYS


def _items(raw: dict[str, Any], name: str) -> list[Any]:
    found = raw.get(name)
    return found if isinstance(found, list) else []


def _length(raw: dict[str, Any], name: str, kind: type[list[Any]] | type[dict[str, Any]]) -> int:
    found = raw.get(name)
    return len(found) if isinstance(found, kind) else 0


def _is_unicode(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
