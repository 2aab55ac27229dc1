"""What a hierarchy may hold."""

from __future__ import annotations

from dataclasses import dataclass

from robustzs.labels import rules


@dataclass(frozen=True, kw_only=True)
class HierarchyLimits:
    """Caps on what is read or built; beyond them a hierarchy is refused, never truncated.

    Args:
        max_depth: Edges between the root and the deepest node.
        max_nodes: Nodes of the tree.
        max_aliases: Aliases of one node.
        max_text: Characters of an id, name, prompt, synset or alias, and of the tree's and its
            ranks' names.
        max_gloss: Characters of a gloss, and of one entry of the provenance.
        max_ranks: Named levels.
        max_provenance: Entries of the provenance.
        max_bytes: Bytes of one file.
    """

    max_depth: int = 64
    max_nodes: int = 200_000
    max_aliases: int = rules.MAX_ALIASES
    max_text: int = rules.MAX_TEXT_LENGTH
    max_gloss: int = 8_192
    max_ranks: int = 256
    max_provenance: int = 64
    max_bytes: int = rules.MAX_FILE_BYTES


DEFAULT_LIMITS = HierarchyLimits()
