"""Robustness cards: measured numbers, each with the protocol that it was measured by."""
