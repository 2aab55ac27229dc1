"""What may be wrong with a hierarchy."""

from __future__ import annotations

from collections.abc import Sequence

from robustzs.errors.base import RobustZSError


class HierarchyError(RobustZSError):
    """Something is wrong with a hierarchy.

    Args:
        message: What is wrong.
        hint: What to do about it.
        problems: Every problem of a file, one sentence each with its line, when there are several.
    """

    code = "hierarchy"

    def __init__(self, message: str, *, hint: str = "", problems: Sequence[str] = ()) -> None:
        super().__init__(message, hint=hint)
        self.problems = tuple(problems)


class CycleError(HierarchyError):
    """A node is its own ancestor."""

    code = "hierarchy-cycle"


class MultipleRootsError(HierarchyError):
    """More than one node has no parent."""

    code = "hierarchy-multiple-roots"


class HierarchyFormatError(HierarchyError):
    """A hierarchy file cannot be parsed, or breaks several rules at once."""

    code = "hierarchy-format"


class HierarchyLimitError(HierarchyError):
    """Too deep, too many nodes, or names too long."""

    code = "hierarchy-limit"


class UnknownLabelError(HierarchyError):
    """WordNet has no noun for a label."""

    code = "label-unknown"


class AmbiguousLabelError(HierarchyError):
    """Several senses fit a label.

    Args:
        message: What is ambiguous.
        candidates: ``(synset, gloss)`` pairs, best first.
        hint: How to choose.
    """

    code = "label-ambiguous"

    def __init__(
        self, message: str, *, candidates: Sequence[tuple[str, str]] = (), hint: str = ""
    ) -> None:
        super().__init__(message, hint=hint)
        self.candidates = tuple(candidates)


class UnknownNodeError(HierarchyError):
    """No node of the tree has that id, name or rank."""

    code = "hierarchy-unknown-node"


class LabelMismatchError(HierarchyError):
    """The leaves of the tree and the labels differ."""

    code = "label-mismatch"


class HierarchyDigestError(HierarchyError):
    """The tree in a file is not the one that its digest names."""

    code = "hierarchy-digest"


class WordNetDataMissingError(HierarchyError):
    """WordNet or the noun index is not there, or damaged."""

    code = "wordnet-data-missing"
