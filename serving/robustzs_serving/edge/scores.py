"""Rounding or withholding scores: what is shown of how sure the model is."""

from __future__ import annotations

from typing import Any

from robustzs_serving.settings import ScorePolicy

_SCORES = frozenset({"probability", "conditional_probability", "similarity"})


def apply_scores(policy: ScorePolicy, answer: dict[str, Any]) -> dict[str, Any]:
    """An answer as a dict (``Answer.model_dump(mode="json")``), with scores as the policy says.

    ``rounded`` rounds every probability and similarity. ``withheld`` makes them null, lists only
    the best of ``top_k``, and no ``alternatives``, whose order would rank them. The argument is
    not changed; an error row comes back as it is.
    """
    if policy.kind == "full":
        return answer
    changed = _walk(policy, answer)
    return changed if isinstance(changed, dict) else answer


def _walk(policy: ScorePolicy, value: Any) -> Any:
    if isinstance(value, list):
        return [_walk(policy, item) for item in value]
    if not isinstance(value, dict):
        return value
    made: dict[str, Any] = {}
    for key, item in value.items():
        if key in _SCORES and isinstance(item, (int, float)):
            made[key] = None if policy.kind == "withheld" else round(float(item), policy.decimals)
        elif policy.kind == "withheld" and key == "alternatives":
            made[key] = []
        elif policy.kind == "withheld" and key == "top_k":
            made[key] = _walk(policy, item[:1])
        else:
            made[key] = _walk(policy, item)
    return made
