"""Robustness at every depth of a tree: questions, attacks on them, scores, rows of cards."""
