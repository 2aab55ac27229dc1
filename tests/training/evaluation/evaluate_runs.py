"""`robustzs evaluate` without its command line."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from robustzs_training.evaluation.evaluate_command import EvaluateOutcome, run_evaluate
from robustzs_training.evaluation.request import EvaluateRequest

from tests.training.evaluation.measured_worlds import unseen


def evaluated(request: EvaluateRequest, **changes: Any) -> tuple[EvaluateOutcome, list[str]]:
    """Run; what came out, and what it said."""
    said: list[str] = []
    return run_evaluate(replace(request, **changes), say=said.append, progress=unseen), said
