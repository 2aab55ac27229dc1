"""Attacks from outside, on a :class:`~robustzs_training.evaluation.base.Victim`.

Gradient attacks are those of ``pyautoattack``, step for step; our own PGD is there for comparison
and is never the verdict. Every image's randomness follows from the seed and its row, broken images
are not attacked again, and every perturbation is held against the threat model.

::

    attack = build_attack("autoattack", ThreatModel.parse("4/255"), ensemble="fare")
    found = attack(victim, pixels, right, rows)
"""

from robustzs_training.evaluation.attacks.build import ATTACKS, VERDICTS, build_attack
from robustzs_training.evaluation.attacks.ensemble import AutoAttack, Ensemble

__all__ = ["ATTACKS", "VERDICTS", "AutoAttack", "Ensemble", "build_attack"]
