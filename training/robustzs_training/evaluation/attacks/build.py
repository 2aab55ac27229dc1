"""Attacks by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import get_args

from robustzs.errors import UsageError
from robustzs.threat import ThreatModel
from robustzs_training.evaluation.attacks.black_box import FabAttack, SquareAttack
from robustzs_training.evaluation.attacks.ensemble import AutoAttack, Ensemble
from robustzs_training.evaluation.attacks.indirect import (
    CaptionAttack,
    FeatureAttack,
    PromptAttack,
)
from robustzs_training.evaluation.attacks.stepwise import MOMENTUM, PgdAttack
from robustzs_training.evaluation.attacks.white_box import ApgdAttack
from robustzs_training.evaluation.base import Attack

ATTACKS = {
    "autoattack": "apgd-ce, then apgd-t or apgd-dlr, as an ensemble says: the verdict",
    "apgd-ce": "APGD on the cross-entropy",
    "apgd-dlr": "APGD on the difference of logits ratio",
    "apgd-t": "APGD on the targeted ratio, 9 targets",
    "fab-t": "targeted FAB, 9 targets",
    "square": "Square: black-box, by scores",
    "pgd": "our training's PGD: reported, never the verdict",
    "cw": "PGD on the margin: reported, never the verdict",
    "features": "away from the clean image's features: no text",
    "captions": "away from the image's own caption",
    "prompts": "away from the right labels under other prompts",
}
"""What :func:`build_attack` knows."""
VERDICTS = ("autoattack", "apgd-ce", "apgd-dlr", "apgd-t")
"""Attacks whose number can stand on its own."""


@dataclass(frozen=True)
class _Options:
    threat: ThreatModel
    n_steps: int | None
    n_restarts: int | None
    step_size: float | None
    momentum: float | None
    n_queries: int
    seed: int
    rescale: bool
    ensemble: Ensemble
    captions: Sequence[str] | None
    prompts: Sequence[str] | None

    def steps(self, default: int = 100) -> int:
        return default if self.n_steps is None else self.n_steps

    @property
    def restarts(self) -> int:
        return 1 if self.n_restarts is None else self.n_restarts


def build_attack(
    name: str,
    threat: ThreatModel,
    *,
    n_steps: int | None = None,
    n_restarts: int | None = None,
    step_size: float | None = None,
    momentum: float | None = None,
    n_queries: int = 5000,
    seed: int = 0,
    rescale: bool = True,
    ensemble: Ensemble = "fare",
    captions: Sequence[str] | None = None,
    prompts: Sequence[str] | None = None,
) -> Attack:
    """An attack by its name.

    Args:
        name: One of :data:`ATTACKS`.
        threat: Norm and radius.
        n_steps: Of iterative attacks; ``None``: 100, and 10 for ``pgd`` and ``cw``.
        n_restarts: ``None``: 1, and what an ensemble says.
        step_size: Of ``pgd`` and ``cw``; ``None``: a quarter of the radius.
        momentum: Of ``pgd`` and ``cw``, in [0, 1); ``None``: 0.9, as in training.
        n_queries: Of ``square``, also in the ensemble ``standard``.
        seed: Of all randomness.
        rescale: See ``ApgdAttack``; ``False`` shows attacks the logits as deployed.
        ensemble: Members of ``autoattack``. ``fare``: apgd-ce with 5 restarts, apgd-t with 9
            targets. ``qt-aft``: apgd-ce, apgd-dlr. ``standard``: apgd-ce, apgd-t, fab-t, square,
            as in AutoAttack's own. The first two run apgd-ce alone where there are two labels.
        captions: For ``captions``: one for each picture of the set.
        prompts: For ``prompts``: one for each label.

    Raises:
        UsageError: An unknown name, a number out of range, or texts that are missing.
    """
    for option, value in (("n_steps", n_steps), ("n_restarts", n_restarts), ("seed", seed)):
        if value is not None and (isinstance(value, bool) or value < (option != "seed")):
            raise UsageError(f"{option} is {value!r}", hint="a whole number, at least 1")
    if n_queries < 1:
        raise UsageError(f"n_queries is {n_queries!r}", hint="a whole number, at least 1")
    if threat.eps <= 0.0:
        raise UsageError("a radius of 0 leaves nothing to attack", hint="write 1/255, for example")
    if name not in _MAKERS:
        raise UsageError(f"unknown attack {name!r}", hint=f"choose from {', '.join(ATTACKS)}")
    return _MAKERS[name](
        _Options(
            threat, n_steps, n_restarts, step_size, momentum, n_queries, seed, rescale, ensemble,
            captions, prompts,
        )
    )  # fmt: skip


def _apgd(options: _Options, name: str, *, n_restarts: int | None = None) -> ApgdAttack:
    return ApgdAttack(
        name=name,  # type: ignore[arg-type]
        threat=options.threat,
        n_steps=options.steps(),
        n_restarts=options.restarts if n_restarts is None else n_restarts,
        seed=options.seed,
        rescale=options.rescale,
    )


def _autoattack(options: _Options) -> AutoAttack:
    if options.ensemble not in get_args(Ensemble):
        raise UsageError(
            f"unknown ensemble {options.ensemble!r}",
            hint=f"choose from {', '.join(get_args(Ensemble))}",
        )
    members: dict[Ensemble, tuple[Attack, ...]] = {
        "fare": (
            _apgd(options, "apgd-ce", n_restarts=options.n_restarts or 5),
            _apgd(options, "apgd-t"),
        ),
        "qt-aft": (_apgd(options, "apgd-ce"), _apgd(options, "apgd-dlr")),
        "standard": (
            _apgd(options, "apgd-ce"),
            _apgd(options, "apgd-t"),
            _fab(options),
            _square(options),
        ),
    }
    chosen = members[options.ensemble]
    everyone = tuple(member.name for member in chosen)
    return AutoAttack(
        threat=options.threat,
        members=chosen,
        ensemble=options.ensemble,
        binary=everyone if options.ensemble == "standard" else ("apgd-ce",),
        seed=options.seed,
    )


def _fab(options: _Options) -> FabAttack:
    return FabAttack(threat=options.threat, n_steps=options.steps(), seed=options.seed)


def _square(options: _Options) -> SquareAttack:
    return SquareAttack(
        threat=options.threat,
        n_queries=options.n_queries,
        n_restarts=options.restarts,
        seed=options.seed,
    )


def _pgd(options: _Options, name: str) -> PgdAttack:
    return PgdAttack(
        name=name,  # type: ignore[arg-type]
        threat=options.threat,
        n_steps=options.steps(10),
        step_size=options.step_size,
        momentum=MOMENTUM if options.momentum is None else options.momentum,
        n_restarts=options.restarts,
        seed=options.seed,
        rescale=options.rescale,
    )


def _features(options: _Options) -> FeatureAttack:
    return FeatureAttack(
        threat=options.threat,
        n_steps=options.steps(),
        n_restarts=options.restarts,
        seed=options.seed,
    )


def _captions(options: _Options) -> CaptionAttack:
    if options.captions is None:
        raise UsageError(
            "the attack 'captions' needs a caption for each picture",
            hint="make them by `robustzs caption`, or choose 'features' or 'prompts'",
        )
    return CaptionAttack(
        threat=options.threat,
        captions=tuple(options.captions),
        n_steps=options.steps(),
        n_restarts=options.restarts,
        seed=options.seed,
    )


def _prompts(options: _Options) -> PromptAttack:
    if options.prompts is None:
        raise UsageError(
            "the attack 'prompts' needs another prompt for each label",
            hint="use another template set, or the labels' glosses",
        )
    return PromptAttack(
        threat=options.threat,
        prompts=tuple(options.prompts),
        n_steps=options.steps(),
        n_restarts=options.restarts,
        seed=options.seed,
    )


_MAKERS: dict[str, Callable[[_Options], Attack]] = {
    "autoattack": _autoattack,
    "apgd-ce": lambda options: _apgd(options, "apgd-ce"),
    "apgd-dlr": lambda options: _apgd(options, "apgd-dlr"),
    "apgd-t": lambda options: _apgd(options, "apgd-t"),
    "fab-t": _fab,
    "square": _square,
    "pgd": lambda options: _pgd(options, "pgd"),
    "cw": lambda options: _pgd(options, "cw"),
    "features": _features,
    "captions": _captions,
    "prompts": _prompts,
}
