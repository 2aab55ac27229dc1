"""Whether numbers can be trusted: checks that refuse to publish, each with its reason and remedy.

Before an attack, :func:`check_victim` looks at the model itself, and :func:`check_limit` at whether
a radius that must break it does. After attacks, :func:`check_perturbation` holds every image
against the threat model, and :func:`check_outcomes` compares verdicts: an attacker who knows less
must not break more. A :class:`CheckReport` goes onto the card whole; :meth:`CheckReport.require`
refuses.

The signs of masked gradients are those of A. Athalye, N. Carlini, D. Wagner, "Obfuscated gradients
give a false sense of security", ICML 2018, section 3.1, and N. Carlini et al., "On evaluating
adversarial robustness", 2019.
"""

from robustzs_training.evaluation.checks.model import check_limit, check_mode, check_victim
from robustzs_training.evaluation.checks.outcomes import (
    BLACK_BOX,
    INDIRECT,
    Verdicts,
    check_leftovers,
    check_order,
    check_outcomes,
    check_perturbation,
    check_steps,
)
from robustzs_training.evaluation.checks.report import CheckReport, CheckResult

__all__ = [
    "BLACK_BOX",
    "INDIRECT",
    "CheckReport",
    "CheckResult",
    "Verdicts",
    "check_leftovers",
    "check_limit",
    "check_mode",
    "check_order",
    "check_outcomes",
    "check_perturbation",
    "check_steps",
    "check_victim",
]
