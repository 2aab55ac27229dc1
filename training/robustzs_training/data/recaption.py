"""Captions other than the source's own: the ablations that QT-AFT's finding rests on.

``names`` says only what is seen, ``names-and-properties`` adds WordNet's kind and looks,
``shuffled`` gives every image another image's caption, so that only the texts' statistics stay.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch

from robustzs.errors import DataError
from robustzs.hierarchy.noun_index import NounIndex
from robustzs.labels import LabelSet
from robustzs_training.data.base import (
    Chunked,
    Finding,
    Keyed,
    Lean,
    Sample,
    SampleSource,
    Surveyed,
)
from robustzs_training.data.captions_table import CaptionTable, missing_captions
from robustzs_training.data.order import IndexArray
from robustzs_training.data.randomness import generator
from robustzs_training.data.resolve import resolve_classes
from robustzs_training.data.strings import StringColumn


@dataclass(frozen=True, eq=False, kw_only=True)
class Recaptioned:
    """A source with other captions. Make one with :func:`recaption`.

    Attributes:
        source: Where images and labels come from.
        mode: What the captions are, for the digest.
        texts: Captions; ``None`` to take the source's.
        rows: int64 ``[n]``, for each example its row of ``texts``, or the example of the source
            whose caption it has.
        findings: What is known to be wrong.
    """

    source: SampleSource
    mode: str
    texts: StringColumn | None
    rows: IndexArray
    findings: tuple[Finding, ...] = ()

    def __len__(self) -> int:
        return len(self.source)

    @property
    def labels(self) -> LabelSet | None:
        """The source's."""
        return self.source.labels

    @property
    def label_of(self) -> torch.Tensor | None:
        """The source's."""
        return self.source.label_of

    @cached_property
    def digest(self) -> str:
        """Over the source and the captions."""
        total = hashlib.sha256(f"{self.source.digest} {self.mode} ".encode())
        total.update(self.rows.astype("<i8").tobytes())
        for part in self.texts.parts if self.texts is not None else ():
            total.update(part)
        return total.hexdigest()

    def caption_of(self, index: int) -> str | None:
        """The other caption."""
        row = int(self.rows[index])
        return self.source.caption_of(row) if self.texts is None else self.texts[row] or None

    def key_of(self, index: int) -> str:
        """The source's, or the number."""
        return self.source.key_of(index) if isinstance(self.source, Keyed) else str(index)

    def read(self, index: int) -> Sample:
        """The source's image with the other caption.

        Raises:
            ImageError: As the source.
            DataError: As the source.
        """
        return replace(self.source.read(index), caption=self.caption_of(index))

    def for_workers(self) -> SampleSource:
        """The source without its captions."""
        return self.source.for_workers() if isinstance(self.source, Lean) else self.source


@dataclass(frozen=True, eq=False, kw_only=True)
class _RecaptionedShards(Recaptioned):
    """The same over shards; apart, because having chunks is what makes a source be read so."""

    @property
    def chunks(self) -> Sequence[tuple[int, int]]:
        """The source's."""
        return self.source.chunks if isinstance(self.source, Chunked) else ((0, len(self)),)


def recaption(source: SampleSource, mode: str, *, template: str, seed: int = 0) -> SampleSource:
    """Exchange the captions of a source.

    Args:
        source: The examples.
        mode: ``as-is``, ``names``, ``names-and-properties`` or ``shuffled``.
        template: For ``names``: a text with ``{}`` for the class.
        seed: Of the shuffling.

    Raises:
        DataError: Captions by class for data without classes; nothing to shuffle.
    """
    if mode == "as-is":
        return source
    kind = _kind(source)
    known = source.findings if isinstance(source, Surveyed) else ()
    if mode == "shuffled":
        rows = derangement(len(source), seed)
        return kind(source=source, mode=mode, texts=None, rows=rows, findings=known)
    if source.labels is None or source.label_of is None:
        raise DataError(
            f"caption_mode {mode!r} makes captions from classes, and the data have none",
            hint="give data with class folders or labels, or use caption_mode as-is",
        )
    texts, more = _texts_of_classes(source.labels, mode, template)
    # Captions by class are never missing, whatever the source lacks.
    known = tuple(finding for finding in known if finding.kind != "missing-caption")
    findings = tuple({finding.kind: finding for finding in (*known, *more)}.values())
    rows = source.label_of.cpu().numpy().astype(np.int64)
    return kind(
        source=source, mode=mode, texts=StringColumn.of(texts), rows=rows, findings=findings
    )


def with_captions(source: SampleSource, table: CaptionTable) -> SampleSource:
    """Take the captions of a table instead of the source's own.

    Args:
        source: The examples; it tells their keys.
        table: Captions by key. An image without one gets an empty one, and is counted.

    Raises:
        CaptionTableError: The table names none of the examples.
        DataError: The source cannot tell keys.
    """
    if not isinstance(source, Keyed):
        raise DataError(
            f"{table.origin} cannot be joined to these data: they have no keys",
            hint="leave data.captions out",
        )
    keys = StringColumn.of(source.key_of(index) for index in range(len(source)))
    texts = table.captions.take(table.rows_of(keys))
    known = source.findings if isinstance(source, Surveyed) else ()
    findings = (
        *(finding for finding in known if finding.kind != "missing-caption"),
        missing_captions(texts, keys),
    )
    return _kind(source)(
        source=source,
        mode="table",
        texts=texts,
        rows=np.arange(len(source), dtype=np.int64),
        findings=findings,
    )


def derangement(n: int, seed: int) -> IndexArray:
    """A random order in which nothing stays in its place: int64 ``[n]``.

    One cycle through all, in a uniformly random order.

    Raises:
        DataError: Fewer than two things.
    """
    if n < 2:
        raise DataError(f"{n} captions cannot be shuffled", hint="use caption_mode as-is")
    cycle = generator("captions", seed).permutation(n)
    rows = np.empty(n, dtype=np.int64)
    rows[cycle] = np.roll(cycle, -1)
    return rows


def _kind(source: SampleSource) -> type[Recaptioned]:
    return _RecaptionedShards if isinstance(source, Chunked) else Recaptioned


def _texts_of_classes(
    labels: LabelSet, mode: str, template: str
) -> tuple[list[str], tuple[Finding, ...]]:
    if mode == "names":
        if "{}" not in template:
            raise DataError(
                f"the template {template!r} has no place for the class",
                hint='write "{}" where its name stands',
            )
        return [template.replace("{}", label.prompt) for label in labels], ()
    if mode != "names-and-properties":
        raise DataError(
            f"there is no caption_mode {mode!r}",
            hint="use as-is, names, names-and-properties or shuffled",
        )
    from robustzs_training.captions.gloss import gloss_caption

    index = NounIndex.load()
    resolved = resolve_classes(labels, index)
    return [gloss_caption(label, index) for label in resolved.labels], (resolved.finding,)
