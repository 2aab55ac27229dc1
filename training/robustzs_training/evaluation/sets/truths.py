"""From the labels of pictures to right answers: a row of booleans for each, none of them empty."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from robustzs.errors import DataError
from robustzs.labels import LabelSet
from robustzs.metrics.right import RightLabels
from robustzs_training.evaluation.sets.table import listed


@dataclass(frozen=True, kw_only=True)
class Truths:
    """What is right for the pictures that count.

    Attributes:
        labels: To choose from.
        rows: int64 ``[m]``, ascending: the pictures that some label is right for.
        right: bool ``[k, C]``: for each distinct label of pictures.
        truth: ``k`` of them: a label's id or a wnid.
        codes: int64 ``[n]``: which of the ``k`` each picture of the source has.
        report: For the set's description: what was left out, and what was chosen.
    """

    labels: LabelSet
    rows: npt.NDArray[np.int64]
    right: npt.NDArray[np.bool_]
    truth: tuple[str, ...]
    codes: npt.NDArray[np.int64]
    report: dict[str, Any]


def own_truths(labels: LabelSet, codes: npt.NDArray[np.int64]) -> Truths:
    """Every picture is of one of the labels."""
    return Truths(
        labels=labels,
        rows=np.arange(len(codes), dtype=np.int64),
        right=np.eye(len(labels), dtype=bool),
        truth=labels.ids,
        codes=codes,
        report={},
    )


def looked_up(
    texts: Sequence[str],
    codes: npt.NDArray[np.int64],
    labels: LabelSet,
    *,
    origin: str,
    place: Callable[[int], str],
) -> Truths:
    """Look up what pictures show among other labels.

    Args:
        texts: Distinct labels of pictures.
        codes: int64 ``[n]``, places in ``texts``.
        labels: To choose from.
        origin: Where the pictures come from, for messages.
        place: Where a text stands, for messages: ``line 3``.

    Raises:
        DataError: Labels that mean nothing, all of them at once; or no picture that counts.
    """
    found = RightLabels(labels).find(texts)
    counts = np.bincount(codes, minlength=len(texts))
    if found.unknown:
        problems = [
            f"{place(number)}: {found.unknown[text]} ({counts[number]} pictures)"
            for number, text in enumerate(texts)
            if text in found.unknown
        ]
        raise DataError(
            listed(origin, problems),
            hint="labels are names, synsets (dog.n.01) or wnids; `robustzs hierarchy resolve WORD` "
            "lists the senses of a word; labels=own takes the pictures' own labels as classes",
        )
    right = np.zeros((len(texts), len(labels)), dtype=bool)
    for number, text in enumerate(texts):
        right[number, found.answers[text].columns] = True
    usable: npt.NDArray[np.bool_] = np.any(right, axis=1)
    rows = np.flatnonzero(usable[codes]).astype(np.int64)
    without = [text for text, one in zip(texts, usable, strict=True) if not one]
    if not len(rows):
        raise DataError(
            f"{origin}: none of its {len(texts)} labels is right for one of the {len(labels)} "
            f"labels to choose from, for example {without[0]!r}",
            hint="give other labels, or labels=own",
        )
    report: dict[str, Any] = {}
    if without:
        report["without_a_right_label"] = {
            "n": int(len(codes) - len(rows)),
            "labels": {
                text: int(counts[number]) for number, text in enumerate(texts) if not usable[number]
            },
        }
    above = [text for text in texts if found.answers[text].how == "above"]
    if above:
        report["right_above"] = {text: found.answers[text].truth for text in above}
    notes = [found.answers[text].note for text in texts if found.answers[text].note]
    if notes:
        report["senses"] = notes
    return Truths(
        labels=labels,
        rows=rows,
        right=right,
        truth=tuple(found.answers[text].truth for text in texts),
        codes=codes,
        report=report,
    )
