"""From scores to metrics and rows of a card."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from robustzs.answer import StopRule
from robustzs.cards.reading import make_result
from robustzs.cards.schema import Attack as CardAttack
from robustzs.cards.schema import Meaning, Result
from robustzs.hierarchy.tree import Hierarchy
from robustzs.metrics.curves import expected_calibration_error, hierarchical_curve
from robustzs.metrics.severity import (
    hierarchical_distance,
    hierarchical_scores,
    lca_height,
    mistake_severity,
)
from robustzs.metrics.verdicts import answers_at, is_right
from robustzs_training.evaluation.hierarchical.scores import FLAT, Scores

Metrics = dict[str, float | None]
_DIGITS = 6


def tree_metrics(
    scores: Scores,
    tree: Hierarchy,
    *,
    theta: float,
    rule: StopRule = "greedy",
    before: Scores | None = None,
) -> Metrics:
    """Metrics of the deployed answers; definitions in ``docs/metrics.md``.

    Images whose right labels are not those of one node have no place in a tree: they are left out
    here, and counted in ``n_without_node``.

    Args:
        scores: Of clean or attacked images, at least one.
        tree: The tree.
        theta: Threshold of the answers.
        rule: That of the scores.
        before: The same images unperturbed, for ``height_from_clean``: the mean height of the
            lowest common ancestor of top-1 before and under attack.
    """
    known = scores.truth >= 0
    found: Metrics = {} if known.all() else {"n_without_node": float((~known).sum())}
    if not known.any():
        return found
    kept = scores.take(known)
    truth = kept.truth
    probs = _spread(kept, tree)
    answers = answers_at(probs, tree, theta=theta, rule=rule)
    precision = hierarchical_scores(answers, truth, tree)
    found |= {
        "hierarchical_accuracy": float(is_right(answers, truth, tree).mean()),
        "specificity": float(np.mean(tree.specificity[answers], dtype=np.float64)),
        "theta": theta,
        "hp": precision.precision,
        "hr": precision.recall,
        "hf": precision.f1,
        "hd1": hierarchical_distance(kept.top, truth, tree),
        "mistake_severity": mistake_severity(kept.top, truth, tree),
        "haurc": hierarchical_curve(probs, truth, tree, rule=rule).area,
    }
    if kept.consistent is not None:
        found["hca"] = float(kept.consistent.mean())
    if before is not None:
        found["height_from_clean"] = float(lca_height(scores.top, before.top, tree).mean())
    return {name: _rounded(value) for name, value in found.items()}


def question_metrics(scores: Scores, name: str) -> Metrics:
    """ECE of the verdict's own probability, and margins, of one question.

    The margin is in nats, over images for which something can be wrong.
    """
    column = scores.place(name)
    margins = scores.margin[:, column].astype(np.float64)
    margins = margins[np.isfinite(margins)]
    found: Metrics = {
        "ece": expected_calibration_error(scores.sure[:, column], scores.right[:, column])
    }
    if len(margins):
        found |= {"margin_mean": float(margins.mean()), "margin_median": float(np.median(margins))}
    return {name: _rounded(value) for name, value in found.items()}


def robust_outcomes(
    clean: Scores, under: Scores, *, attacked: str = FLAT, robust: npt.ArrayLike | None = None
) -> dict[str, npt.NDArray[np.bool_]]:
    """Right before and under an attack, bool ``[n]``, for each question.

    Args:
        clean: Before.
        under: Under the attack; images that were not attacked are there as they were.
        attacked: The question that was attacked.
        robust: What the attack itself says of its own question, bool ``[n]``: it saw the very
            numbers, and both must call an image right.
    """
    found = {
        name: clean.right[:, column] & under.right[:, column]
        for column, name in enumerate(clean.names)
    }
    if robust is not None:
        found[attacked] = found[attacked] & np.asarray(robust, np.bool_)
    return found


def depth_results(
    clean: Scores,
    under: Scores,
    tree: Hierarchy,
    *,
    dataset: str,
    attack: CardAttack,
    theta: float,
    attacked: str = FLAT,
    robust: npt.ArrayLike | None = None,
    rule: StopRule = "greedy",
    keep_outcomes: bool = True,
    transfer_only: bool = False,
) -> list[Result]:
    """Rows of a card: one attack, and what it did to every question.

    The row of the attacked question is its robust accuracy; the others show what the same images do
    elsewhere. Flat top-1 carries the metrics of the whole tree.

    Args:
        clean: Before the attack.
        under: Under it.
        tree: The tree.
        dataset: Its name.
        attack: The attack, as the card has it.
        theta: Threshold of the answers.
        attacked: Name of the question that was attacked.
        robust: See :func:`robust_outcomes`.
        rule: That of the scores.
        keep_outcomes: Keep a bit for each image.
        transfer_only: See the card's schema.

    Raises:
        CardError: No images, or scores of different ones.
    """
    outcomes = robust_outcomes(clean, under, attacked=attacked, robust=robust)
    attacked_depth, attacked_meaning = split_name(attacked)
    rows = []
    for column, name in enumerate(clean.names):
        depth, meaning = split_name(name)
        before, after = question_metrics(clean, name), question_metrics(under, name)
        if name == FLAT:
            before |= tree_metrics(clean, tree, theta=theta, rule=rule)
            after |= tree_metrics(under, tree, theta=theta, rule=rule, before=clean)
        elif depth is not None:
            # for images whose truth is less deep, the truth itself was asked
            deep = tree.depth[clean.truth[clean.truth >= 0]] >= depth
            before["n_reaching"] = after["n_reaching"] = float(deep.sum())
        rows.append(
            make_result(
                clean.right[:, column],
                outcomes[name],
                dataset=dataset,
                attack=attack,
                depth=depth,
                meaning=meaning,
                attacked_depth=attacked_depth,
                attacked_meaning=attacked_meaning,
                keep_outcomes=keep_outcomes,
                metrics=after,
                clean_metrics=before,
                transfer_only=transfer_only,
            )
        )
    return rows


def split_name(name: str) -> tuple[int | None, Meaning]:
    """``rollup:4`` to 4 and ``rollup``; ``flat`` to no depth."""
    meanings: Mapping[str, Meaning] = {"rollup": "rollup", "prompt": "prompt"}
    meaning, _, depth = name.partition(":")
    return (int(depth), meanings[meaning]) if depth else (None, "flat")


def _spread(scores: Scores, tree: Hierarchy) -> npt.NDArray[np.float32]:
    """Node probabilities that are known, ``[n, n_nodes]``: those of the paths, else 0.

    Along a path nothing changes by that: its node is the most probable child, and the only one.
    """
    probs = np.zeros((len(scores), len(tree)), np.float32)
    rows, at = np.arange(len(scores)), scores.end
    while len(rows):
        probs[rows, at] = scores.path[rows, tree.depth[at]]
        inside = at > 0
        rows, at = rows[inside], tree.parent[at[inside]].astype(np.int64)
    return probs


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, _DIGITS)
