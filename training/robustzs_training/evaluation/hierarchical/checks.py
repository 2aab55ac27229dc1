"""Whether the attacks on different depths contradict each other."""

from __future__ import annotations

from collections.abc import Mapping

from robustzs_training.evaluation.checks import CheckReport
from robustzs_training.evaluation.checks.outcomes import check_order
from robustzs_training.evaluation.hierarchical.scores import BoolArray


def check_transfer(outcomes: Mapping[str, Mapping[str, BoolArray]]) -> CheckReport:
    """An attack on a question's own loss must not be weaker than what transfers to it.

    Where images made for another depth break a question that its own attack left standing, by more
    than noise, that attack did not search well, and its robust accuracy overstates.

    Args:
        outcomes: By attacked and by asked question: right before and under the attack, bool
            ``[n]``, of the same images.
    """
    return CheckReport(
        tuple(
            check_order(
                f"own-loss-not-weaker:{asked}:{attacked}",
                outcomes[asked][asked],
                by_question[asked],
                names=(f"the attack on {asked}", f"that on {attacked}"),
                remedy="give the attack more steps and restarts",
            )
            for asked in outcomes
            for attacked, by_question in outcomes.items()
            if attacked != asked and asked in by_question
        )
    )
