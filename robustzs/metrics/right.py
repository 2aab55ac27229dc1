"""Which labels are right for a picture, whatever depth its own label has.

A picture of a dog, asked among the 1000 classes of ImageNet, is answered rightly by any of the
dogs. So the label of a picture is looked up: among the labels first, then in WordNet, where its
sense counts through the labels at or below it. Where there is none, the labels above it are right
(``church`` for ``cathedral``), since nothing more specific can be answered. Where there is none
either, no label is right, and the picture says nothing about a model.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt

from robustzs.hierarchy.noun_index import NounIndex
from robustzs.hierarchy.resolve import Resolution, resolve_labels
from robustzs.labels import Label, LabelSet, rules

How = Literal["label", "below", "above", "none"]
IndexArray = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class RightAnswer:
    """What the label of a picture means among labels.

    Attributes:
        truth: What the picture shows: a label's id, else a wnid. Where only labels above are right,
            the nearest of them, since no tree over the labels has a node for the wnid.
        columns: int64, ascending: the labels that are right; empty where none is.
        how: Whether it is a label itself, counts through those below it or above it, or not at all.
        note: What a person should be told, such as a sense that was chosen among several.
    """

    truth: str
    columns: IndexArray
    how: How
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Found:
    """Texts that were looked up.

    Attributes:
        answers: By text.
        unknown: By text, why it is neither a label nor a noun.
    """

    answers: dict[str, RightAnswer]
    unknown: dict[str, str]


class RightLabels:
    """Looks up which labels are right.

    Args:
        labels: To choose from. One without a synset gets its likeliest sense, with the others as
            context, where one is needed.
        index: WordNet's nouns; ``None`` for those that ship.
    """

    def __init__(self, labels: LabelSet, index: NounIndex | None = None) -> None:
        self._labels = labels
        self._index = NounIndex.load() if index is None else index

    def find(self, texts: Iterable[str]) -> Found:
        """Look up names, synsets (``dog.n.01``) and wnids, at any depth.

        In this order: an id, synset or prompt of one label; a name of one label; the sense that
        WordNet has for the text; an alias of one label.

        Args:
            texts: Equal ones are looked up once. Names are each other's context.
        """
        answers: dict[str, RightAnswer] = {}
        open_ones: list[str] = []
        for text in dict.fromkeys(texts):
            column = self._by_name.get(_key(text), -1)
            if column >= 0:
                answers[text] = self._label(column, "")
            else:
                open_ones.append(text)
        unknown: dict[str, str] = {}
        for text, resolution in self._resolve(open_ones, unknown):
            answers[text] = self._answer(text, resolution)
        for text in list(unknown):
            column = self._by_alias.get(_key(text), -1)
            if column >= 0:
                del unknown[text]
                answers[text] = self._label(column, self._alias_note(text, column))
        return Found(answers=answers, unknown=unknown)

    def columns_of(self, synset_id: str) -> tuple[IndexArray, How]:
        """The labels that are right for a wnid or sense, and why.

        Raises:
            UnknownLabelError: WordNet has no such noun sense.
        """
        row = self._index.row(synset_id)
        below = self._columns_below.get(row)
        if below:
            return np.array(below, np.int64), "below"
        above = [column for each in self._above(row) for column in self._column_of.get(each, ())]
        return np.array(sorted(above), np.int64), "above" if above else "none"

    def _answer(self, text: str, resolution: Resolution) -> RightAnswer:
        synset = resolution.synset
        if synset is None:  # resolved texts have one
            return RightAnswer(truth=text, columns=np.array([], np.int64), how="none")
        note = "; ".join(resolution.warnings)
        columns, how = self.columns_of(synset.wnid)
        if how == "none" and (column := self._by_alias.get(_key(text), -1)) >= 0:
            return self._label(column, self._alias_note(text, column))
        if how == "above":
            nearest = next(row for row in self._above(synset.row) if row in self._column_of)
            truth = self._labels[self._column_of[nearest][0]].id
            return RightAnswer(truth=truth, columns=columns, how=how, note=note)
        return RightAnswer(truth=synset.wnid, columns=columns, how=how, note=note)

    def _label(self, column: int, note: str) -> RightAnswer:
        return RightAnswer(
            truth=self._labels[column].id,
            columns=np.array([column], np.int64),
            how="label",
            note=note,
        )

    def _alias_note(self, text: str, column: int) -> str:
        return f"{text!r} is taken as another name of the label {self._labels[column].name!r}"

    def _resolve(
        self, texts: Sequence[str], unknown: dict[str, str]
    ) -> list[tuple[str, Resolution]]:
        asked: list[Label] = []
        for text in texts:
            known = text in self._index
            pinned = known or rules.is_wnid(text) or rules.is_sense(text)
            if pinned and not known:
                unknown[text] = f"WordNet 3.0 has no noun sense {text!r}"
            elif not text.strip():
                unknown[text] = "the label is empty"
            else:
                name = text.replace("_", " ")
                asked.append(Label(text, name, name, synset=text if pinned else None))
        found = resolve_labels(asked, self._index, on_ambiguous="first", on_unknown="attach")
        resolved = []
        for label, one in zip(asked, found, strict=True):
            if one.synset is None:
                unknown[label.id] = f"{label.id!r} is neither a label nor a noun of WordNet 3.0"
            else:
                resolved.append((label.id, one))
        return resolved

    @cached_property
    def _by_name(self) -> dict[str, int]:
        """Columns of ids and synsets, then of prompts and names; -1 for those of several labels."""
        found: dict[str, int] = {}
        for texts in (
            [(label.id, label.synset) for label in self._labels],
            [(label.prompt,) for label in self._labels],
            [(label.name,) for label in self._labels],
        ):
            layer = _columns(texts)
            found = {**layer, **found}
        return found

    @cached_property
    def _by_alias(self) -> dict[str, int]:
        return _columns([label.aliases for label in self._labels])

    @cached_property
    def _column_of(self) -> dict[int, list[int]]:
        """Columns by the row of their sense."""
        rows = [
            self._index.row(label.synset) if label.synset and label.synset in self._index else None
            for label in self._labels
        ]
        if None in rows:
            known = [
                replace(label, synset=None) if row is None else label
                for label, row in zip(self._labels, rows, strict=True)
            ]
            found = resolve_labels(known, self._index, on_ambiguous="first", on_unknown="attach")
            rows = [None if one.synset is None else one.synset.row for one in found]
        columns: dict[int, list[int]] = {}
        for column, row in enumerate(rows):
            if row is not None:
                columns.setdefault(row, []).append(column)
        return columns

    @cached_property
    def _columns_below(self) -> dict[int, list[int]]:
        """Ascending columns by the row of each sense at or above theirs."""
        found: dict[int, list[int]] = {}
        for row, columns in self._column_of.items():
            for each in (row, *self._above(row)):
                found.setdefault(each, []).extend(columns)
        return {row: sorted(columns) for row, columns in found.items()}

    @cached_property
    def _edge_ends(self) -> IndexArray:
        """Where each row's hypernyms begin among the edges, which are sorted by child."""
        child, _, _ = self._index.edges
        return np.searchsorted(child, np.arange(len(self._index) + 1)).astype(np.int64)

    def _above(self, row: int) -> list[int]:
        """Rows of all hypernyms and kinds of an individual, nearest first."""
        _, parent, _ = self._index.edges
        seen = {row}
        queue, above = deque([row]), []
        while queue:
            below = queue.popleft()
            for each in parent[self._edge_ends[below] : self._edge_ends[below + 1]].tolist():
                if each not in seen:
                    seen.add(each)
                    above.append(each)
                    queue.append(each)
        return above


def _columns(texts: Sequence[Iterable[str | None]]) -> dict[str, int]:
    found: dict[str, int] = {}
    for column, names in enumerate(texts):
        for key in {_key(name) for name in names if name}:
            found[key] = column if key not in found else -1
    return found


def _key(text: str) -> str:
    return rules.same_text_key(text.replace("_", " "))
