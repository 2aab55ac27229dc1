"""Averages over datasets, as papers tell them: each set counts the same, whatever its size."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from robustzs.cards.schema import Average, Result


def averages_of(
    results: Sequence[Result], *, left_out: Sequence[str] = (), n_wanted: int | None = None
) -> tuple[Average, ...]:
    """The mean over datasets of flat top-1, for every attack that all of them have met.

    Rows at depths and of deployed precisions have none. There is no interval: datasets are chosen,
    not drawn.

    Args:
        results: Of a card, whole sets.
        left_out: Datasets that do not count, such as those that models were trained on.
        n_wanted: How many sets the protocol's own average is over; ``None`` where there is none.

    Returns:
        One for each attack and size, in the results' order; none for fewer than two datasets.
    """
    flat = [
        each
        for each in results
        if each.depth is None and each.attacked_depth is None and each.precision is None
    ]
    there = list(dict.fromkeys(each.dataset for each in flat))
    counted = tuple(name for name in there if name not in left_out)
    if len(counted) < 2:
        return ()
    found = []
    for attack, norm, eps in dict.fromkeys((each.attack, each.norm, each.eps) for each in flat):
        rows = {
            each.dataset: each
            for each in flat
            if (each.attack, each.norm, each.eps) == (attack, norm, eps)
        }
        if not set(counted) <= set(rows):
            continue
        shares = [(rows[name].clean_accuracy, rows[name].robust_accuracy) for name in counted]
        clean, robust = np.mean(np.asarray(shares, np.float64), axis=0)
        found.append(
            Average(
                attack=attack,
                norm=norm,
                eps=eps,
                datasets=counted,
                left_out=tuple(name for name in there if name in left_out),
                n_wanted=n_wanted,
                clean_accuracy=float(clean),
                robust_accuracy=float(robust),
            )
        )
    return tuple(found)


def in_words(average: Average) -> str:
    """Which sets an average is over: ``2 of 13 sets (cifar10, dtd); without imagenet1k``."""
    n, wanted = len(average.datasets), average.n_wanted
    number = f"{n} of {wanted}" if wanted is not None and wanted > n else f"{n}"
    text = f"{number} sets ({', '.join(average.datasets)})"
    return f"{text}; without {', '.join(average.left_out)}" if average.left_out else text
