"""Attacks: the one PGD of the house."""

from robustzs_training.attacks.pgd import PerturbedInput, pgd

__all__ = ["PerturbedInput", "pgd"]
