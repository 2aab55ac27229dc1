"""Clean and robust accuracy at every depth, and what an attack on one depth does to the others.

::

    scorer = Scorer(tree, pictures.labels, "4,8", temperature=manifest.temperature)
    report = evaluate_depths(victim, pictures, scorer, build_attack("apgd-ce", threat))
    report.table()      # robust accuracy: attacked question by asked question
    report.results("photos", attack_entry, theta=0.65)      # rows of a card

This is the plain way through the parts in :mod:`robustzs_training.evaluation.hierarchical`.
A measurement that can be stopped and resumed takes each ``Question``'s victim and right nodes for
what it attacks, ``Scorer`` and ``Scores.to_notes`` for what it keeps of every image, and
``depth_results`` for the rows.

The images of an attack are those that broke its own question first, or its last try; what it did
not attack, because it was wrong before, counts elsewhere as it is. A leaf attack is therefore
content with a sibling: that it says little about coarser answers is what this table is for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from robustzs.cards.schema import Attack as CardAttack
from robustzs.cards.schema import Result
from robustzs.errors import EvaluationError, UsageError
from robustzs.hierarchy.tree import Hierarchy
from robustzs.metrics.intervals import wilson
from robustzs_training.evaluation.base import Attack, EvaluationSet, Victim
from robustzs_training.evaluation.checks import CheckReport
from robustzs_training.evaluation.hierarchical.checks import check_transfer
from robustzs_training.evaluation.hierarchical.cuts import Cut, choose_depths, leaf_columns
from robustzs_training.evaluation.hierarchical.questions import (
    DepthAttack,
    Question,
    attack_question,
    depth_attack,
    prompt_victim,
    rollup_victim,
    stands,
)
from robustzs_training.evaluation.hierarchical.report import depth_results, robust_outcomes
from robustzs_training.evaluation.hierarchical.scores import FLAT, Scorer, Scores, join_scores

__all__ = [
    "FLAT",
    "Attacked",
    "Cut",
    "DepthAttack",
    "DepthReport",
    "Question",
    "Scorer",
    "Scores",
    "attack_question",
    "check_transfer",
    "choose_depths",
    "depth_attack",
    "depth_results",
    "evaluate_depths",
    "join_scores",
    "leaf_columns",
    "prompt_victim",
    "robust_outcomes",
    "rollup_victim",
    "stands",
]

DepthProgress = Callable[[str, int, int], None]
"""Told the question, how many images are done, and of how many."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Attacked:
    """All images after an attack on one question.

    Attributes:
        question: Its name; ``flat`` for the labels.
        protocol: Everything that decides the attack's result.
        scores: Of all questions; of the images as they were where they were not attacked.
        robust: bool ``[n]``: right in its own question before and under the attack.
        n_attacked: Images that were right, and so attacked.
    """

    question: str
    protocol: dict[str, Any]
    scores: Scores
    robust: npt.NDArray[np.bool_]
    n_attacked: int


@dataclass(frozen=True, eq=False, kw_only=True)
class DepthReport:
    """What an attack did to every depth.

    Attributes:
        scorer: Has tree and questions.
        clean: Before any attack.
        attacked: By the name of the attacked question.
    """

    scorer: Scorer
    clean: Scores
    attacked: dict[str, Attacked]

    @property
    def tree(self) -> Hierarchy:
        """Whose depths are meant."""
        return self.scorer.tree

    def outcomes(self, attacked: str, asked: str) -> npt.NDArray[np.bool_]:
        """Right in one question before and under an attack on another, bool ``[n]``."""
        found = self._attacked(attacked)
        return robust_outcomes(self.clean, found.scores, attacked=attacked, robust=found.robust)[
            asked
        ]

    def table(self) -> dict[str, dict[str, float]]:
        """Accuracy by attacked question (``none``: clean) and by asked question."""
        clean = self.clean.right.mean(axis=0)
        rows = {"none": {name: float(clean[i]) for i, name in enumerate(self.clean.names)}}
        for attacked in self.attacked:
            rows[attacked] = {
                asked: float(self.outcomes(attacked, asked).mean()) for asked in self.clean.names
            }
        return rows

    def checks(self) -> CheckReport:
        """Whether attacks on other questions break what a question's own attack did not."""
        return check_transfer(
            {
                attacked: {asked: self.outcomes(attacked, asked) for asked in self.attacked}
                for attacked in self.attacked
            }
        )

    def document(self) -> dict[str, Any]:
        """The table with counts and Wilson's 95% intervals, as JSON values."""
        n = len(self.clean)
        rows = []
        for attacked, accuracies in self.table().items():
            for asked, accuracy in accuracies.items():
                low, high = wilson(round(accuracy * n), n)
                rows.append(
                    {
                        "attacked": attacked,
                        "asked": asked,
                        "n": n,
                        "accuracy": round(accuracy, 6),
                        "interval": [round(low, 6), round(high, 6)],
                    }
                )
        return {
            "hierarchy": self.tree.digest,
            "temperature": self.scorer.temperature,
            "accuracies": rows,
            "attacks": {name: each.protocol for name, each in self.attacked.items()},
        }

    def results(
        self, dataset: str, attack: CardAttack, *, theta: float, keep_outcomes: bool = True
    ) -> list[Result]:
        """Rows of a card: every attacked question with every asked one.

        Args:
            dataset: Its name.
            attack: The attack, as the card has it.
            theta: Threshold of the deployed answers, for metrics that need one.
            keep_outcomes: Keep a bit for each image.
        """
        return [
            row
            for name, each in self.attacked.items()
            for row in depth_results(
                self.clean,
                each.scores,
                self.tree,
                dataset=dataset,
                attack=attack,
                theta=theta,
                attacked=name,
                robust=each.robust,
                rule=self.scorer.rule,
                keep_outcomes=keep_outcomes,
            )
        ]

    def _attacked(self, name: str) -> Attacked:
        if name not in self.attacked:
            raise UsageError(
                f"{name!r} was not attacked", hint=f"attacked: {', '.join(self.attacked)}"
            )
        return self.attacked[name]


def evaluate_depths(
    victim: Victim,
    pictures: EvaluationSet,
    scorer: Scorer,
    attack: Attack,
    *,
    attacked: Iterable[str] | None = None,
    batch_size: int = 32,
    progress: DepthProgress | None = None,
) -> DepthReport:
    """Attack flat top-1 and every question of a scorer, and ask all questions after each.

    Args:
        victim: The model.
        pictures: The set; its labels are the scorer's.
        scorer: Tree, depths, meanings, temperature.
        attack: On the labels; it is pointed at every question.
        attacked: Names of the questions to attack; ``None`` for all.
        batch_size: Pictures that are attacked together.
        progress: Told after every batch.

    Raises:
        EvaluationError: There are no pictures, or an attack's own objections.
        UsageError: A question of that name does not exist.
    """
    n = len(pictures.keys)
    if n == 0:
        raise EvaluationError(f"{pictures.name} has no pictures", hint="give at least one")
    attacks = _chosen(scorer, attack, attacked)
    clean: list[Scores] = []
    under: dict[str, list[Scores]] = {name: [] for name in attacks}
    robust: dict[str, list[npt.NDArray[np.bool_]]] = {name: [] for name in attacks}
    for start in range(0, n, batch_size):
        rows = np.arange(start, min(start + batch_size, n))
        pixels = pictures.pixels(rows).to(victim.device)
        right = torch.from_numpy(np.ascontiguousarray(pictures.right[rows])).to(victim.device)
        before = scorer(victim, pixels, right)
        verdicts = {}
        for name, each in attacks.items():
            shown, stood, verdicts[name] = _attack(each, victim, pixels, right, rows)
            under[name].append(scorer(victim, shown, right))
            robust[name].append(stood)
            if progress is not None:
                progress(name, int(rows[-1]) + 1, n)
        for name, verdict in verdicts.items():  # those that decided what was attacked
            before = before.with_right(name, verdict)
        clean.append(before)
    joined = join_scores(clean)
    return DepthReport(
        scorer=scorer,
        clean=joined,
        attacked={
            name: Attacked(
                question=name,
                protocol=dict(attacks[name].protocol),
                scores=join_scores(under[name]),
                robust=np.concatenate(robust[name]),
                n_attacked=int(joined.right[:, joined.place(name)].sum()),
            )
            for name in attacks
        },
    )


def _attack(
    attack: Attack,
    victim: Victim,
    pixels: torch.Tensor,
    right: torch.Tensor,
    rows: npt.NDArray[np.int64],
) -> tuple[torch.Tensor, npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """The batch under attack, and which images were right in its question after and before."""
    standing = stands(attack, victim, pixels, right)
    shown, stood = pixels.clone(), standing.clone()
    places = standing.nonzero().flatten()
    if len(places):
        chosen = places.cpu().numpy()
        found = attack(victim, pixels[places], right[places], rows[chosen].tolist())
        shown[places] = found.adversarial.to(shown)
        stood[places] = ~found.broken.to(stood.device)
    return shown, stood.cpu().numpy(), standing.cpu().numpy()


def _chosen(scorer: Scorer, attack: Attack, attacked: Iterable[str] | None) -> dict[str, Attack]:
    known = {scorer.name_of(each): each for each in scorer.attacks(attack)}
    names = list(known) if attacked is None else list(dict.fromkeys(attacked))
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        raise UsageError(
            f"there is no question {', '.join(unknown) or 'to attack'}",
            hint=f"questions: {', '.join(known)}",
        )
    return {name: known[name] for name in names}
