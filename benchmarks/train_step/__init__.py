"""One training step: against QT-AFT's own loop, and as the objective grows."""
