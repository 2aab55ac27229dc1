"""What a request asks for, checked."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import TYPE_CHECKING, Literal

from robustzs.classifier import Options
from robustzs.errors import RobustZSError
from robustzs.hierarchy.tree import Hierarchy
from robustzs.labels.label_set import LabelSet
from robustzs.labels.templates import get_templates

if TYPE_CHECKING:
    from robustzs.hierarchy.resolve import OnAmbiguous, OnUnknown

Tree = str | Hierarchy
"""The name of a built-in tree, or a tree."""


@dataclass(frozen=True)
class ImagePart:
    """One encoded image, or why it did not come.

    Args:
        data: as it was sent; empty where ``error`` is.
        error: what went wrong with this image alone, such as a URL that gave none.
    """

    data: bytes
    error: RobustZSError | None = None


@dataclass(frozen=True, kw_only=True)
class ClassifyCall:
    """One request to classify.

    Args:
        images: at least one.
        options: how to classify.
        labels: what to choose from, where they were sent.
        label_set_id: of stored labels; never together with ``labels``.
        hierarchy: names of built-in trees and trees, in order; ``None`` where none was sent.
        hierarchy_id: of a stored hierarchy; never together with ``hierarchy``.
        templates: a template set's name, or templates; ``None`` for the bundle's.
        on_ambiguous: for labels with several senses in WordNet.
        on_unknown: for labels that WordNet lacks.
        model: name of the model that the client wants; ``None`` takes the one that is there.
    """

    images: tuple[ImagePart, ...]
    options: Options = field(default_factory=Options)
    labels: LabelSet | None = None
    label_set_id: str | None = None
    hierarchy: tuple[Tree, ...] | None = None
    hierarchy_id: str | None = None
    templates: str | tuple[str, ...] | None = None
    on_ambiguous: OnAmbiguous = "error"
    on_unknown: OnUnknown = "error"
    model: str | None = None

    def with_images(self, images: tuple[ImagePart, ...]) -> ClassifyCall:
        """The same question about other images."""
        return replace(self, images=images)

    def resolved(
        self,
        *,
        labels: LabelSet | None = None,
        hierarchy: Sequence[Tree] | None = None,
    ) -> ClassifyCall:
        """The call with what is stored under its ids in place of them."""
        call = self
        if labels is not None:
            call = replace(call, labels=labels, label_set_id=None)
        if hierarchy is not None:
            call = replace(call, hierarchy=tuple(hierarchy), hierarchy_id=None)
        return call

    @cached_property
    def cache_key(self) -> str:
        """Equal exactly for calls that the same classifier answers, whatever their form.

        A call that still has ids of stored things has a key of those ids, which says nothing of
        their content or owner: resolve it first.
        """
        options = {one.name: getattr(self.options, one.name) for one in fields(self.options)}
        if self.options.strategy != "hyponyms":
            options["n_hyponyms"] = None
        for name in ("theta", "target_accuracy", "temperature", "reject"):
            value = options[name]
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                options[name] = float(value) + 0.0  # -0.0 is 0.0
        trees = self.hierarchy
        if trees is None and self.hierarchy_id is None:
            # What load_trees takes where nothing is said.
            chosen = self.labels is not None or self.label_set_id is not None
            trees = ("flat",) if chosen else ("wordnet",)
        grown = "wordnet" in (trees or ()) and self._brings_labels
        record = {
            "options": options,
            "labels": None if self.labels is None else self.labels.digest,
            "label_set_id": self.label_set_id,
            "hierarchy": None if trees is None else [_tree_key(tree) for tree in trees],
            "hierarchy_id": self.hierarchy_id,
            "templates": None if self.templates is None else get_templates(self.templates).digest,
            "senses": [self.on_ambiguous, self.on_unknown] if grown else None,
        }
        text = json.dumps(record, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()

    @property
    def _brings_labels(self) -> bool:
        """Whether WordNet is asked for more than its own tree of ImageNet."""
        return (
            self.labels is not None
            or self.label_set_id is not None
            or self.hierarchy_id is not None
            or any(isinstance(tree, Hierarchy) for tree in self.hierarchy or ())
        )


@dataclass(frozen=True, kw_only=True)
class EmbedCall:
    """One request for features.

    Args:
        images: to embed; may be empty where there are texts.
        texts: to embed as they are; may be empty where there are images.
        encoding: field ``encoding``: lists of numbers, or base64 of little-endian float32.
        model: as in ``ClassifyCall``.
    """

    images: tuple[ImagePart, ...] = ()
    texts: tuple[str, ...] = ()
    encoding: Literal["float", "base64"] = "float"
    model: str | None = None


def _tree_key(tree: Tree) -> str:
    return f"name:{tree}" if isinstance(tree, str) else f"digest:{tree.digest}"
