"""Cards and examples for tests of the report."""

from __future__ import annotations

from typing import Any

import numpy as np
from robustzs_training.evaluation.report import Curve, Example, PathStep

from robustzs.cards.reading import make_result
from robustzs.cards.schema import Attack, Card, Check, Dataset, MeasuredModel, Result, Timings
from robustzs.metrics.curves import risk_coverage
from robustzs.threat import parse_size

N = 250
HOSTILE = "<script>alert(1)</script>\"'&{{7*7}}$\\frac{1}$\u202egnp.exe\x1b[31m\x00"
"""What a file or label may be called: markup, quotes, a template, mathematics, controls."""


def attack(name: str, eps: str, **changes: Any) -> Attack:
    values: dict[str, Any] = {
        "name": name,
        "eps": eps,
        "eps_value": parse_size(eps),
        "n_steps": 100,
        "loss": "ce",
        "implementation": "pyautoattack 0.2.0",
        "saw_defence": True,
    }
    return Attack(**{**values, **changes})


def outcomes(share: float, n: int = N) -> np.ndarray[Any, np.dtype[np.bool_]]:
    return np.arange(n) < round(share * n)


def flat(dataset: str, by: Attack, clean: float, robust: float, **more: Any) -> Result:
    return make_result(outcomes(clean), outcomes(robust), dataset=dataset, attack=by, **more)


def depth_rows(dataset: str, by: Attack, strength: float) -> list[Result]:
    rows = []
    for depth in (2, 4, 6):
        for meaning in ("rollup", "prompt"):
            clean = 1.0 - 0.05 * depth - (meaning == "prompt") * 0.04
            for attacked in (None, depth):
                hit = strength * depth * (0.6 if attacked is None else 1.0)
                rows.append(
                    make_result(
                        outcomes(clean),
                        outcomes(max(clean - hit, 0.0)),
                        dataset=dataset,
                        attack=by,
                        depth=depth,
                        meaning=meaning,  # type: ignore[arg-type]
                        attacked_depth=attacked,
                        attacked_meaning="flat" if attacked is None else meaning,  # type: ignore[arg-type]
                    )
                )
    return rows


def card(*, names: tuple[str, ...] = ("photographs", "drawings"), **changes: Any) -> Card:
    """Two sets, two radii, two attacks, three depths in both meanings."""
    attacks = [attack(name, eps) for name in ("autoattack", "pgd") for eps in ("1/255", "2/255")]
    results = []
    for place, dataset in enumerate(names):
        for each in attacks:
            strength = 0.2 * each.eps_value * 255 * (1.3 if each.name == "autoattack" else 1.0)
            clean = 0.8 - 0.1 * place
            metrics = {"ece": 0.0312, "hca": None} if each.name == "autoattack" else {}
            results.append(
                flat(dataset, each, clean, clean - strength, metrics=metrics, clean_metrics=metrics)
            )
        for each in attacks[:2]:
            results += depth_rows(dataset, each, 0.03 * each.eps_value * 255)
    values: dict[str, Any] = {
        "model": MeasuredModel(name="tiny", digest="a" * 64, engine="torch", hardened=True),
        "robustness": "28.0% of 250 photographs stay right",
        "protocol": ("Verdicts are of the torch model in float32.",),
        "datasets": tuple(
            Dataset(name=name, digest="b" * 64, n=N, n_available=999, seed=3, n_labels=6)
            for name in names
        ),
        "attacks": tuple(attacks),
        "results": tuple(results),
        "checks": (Check(name="bounds", passed=True, message="all perturbations are within eps"),),
        "versions": {"torch": "2.14.1"},
        "complete": True,
        "timings": Timings(seconds=12.5, machine="a machine"),
    }
    return Card(**{**values, **changes})


def one_result(**changes: Any) -> Card:
    """One set, one radius, no depths."""
    by = attack("apgd-ce", "1/255")
    return card(
        names=("photographs",),
        **{"attacks": (by,), "results": (flat("photographs", by, 0.8, 0.3),), **changes},
    )


def example(**changes: Any) -> Example:
    random = np.random.default_rng(0)
    clean = random.integers(40, 200, (24, 20, 3)).astype(np.uint8)
    values: dict[str, Any] = {
        "key": "cats/tabby.png",
        "truth": "tabby",
        "clean": clean,
        "adversarial": clean + np.uint8(2),
        "clean_path": path("entity", "animal", "cat", "tabby"),
        "adversarial_path": path("entity", "artefact", "vase"),
        "dataset": "photographs",
        "attack": "apgd-ce",
        "eps": "2/255",
    }
    return Example(**{**values, **changes})


def path(*names: str) -> tuple[PathStep, ...]:
    return tuple(
        PathStep(name=name, probability=1.0 - 0.2 * place, answer=place == 1)
        for place, name in enumerate(names)
    )


def curve(name: str = "clean", seed: int = 0) -> Curve:
    random = np.random.default_rng(seed)
    sure = random.random(N)
    return Curve(name=name, curve=risk_coverage(sure, random.random(N) < sure))
