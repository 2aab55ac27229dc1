"""What `robustzs evaluate` was asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from robustzs.errors import UsageError
from robustzs.threat import Norm, ThreatModel, parse_size
from robustzs_training.evaluation.attacks import ATTACKS, Ensemble

DEFAULT_EPS = ("1/255", "2/255")
DEFAULT_ATTACKS = ("autoattack",)
STATE_FOLDER = "state"


@dataclass(frozen=True, kw_only=True)
class EvaluateRequest:
    """The options, read.

    Attributes:
        model: A bundle with weights: its name or folder.
        data: Folders, tables and names of sets.
        threats: What attackers may do.
        attacks: By name.
        preset: A paper's protocol.
        root: Where the sets of a preset lie.
        skip_missing: Measure the sets of a preset that are there.
        labels: What to choose from: ``own``, names or a file; ``None``: as the set says.
        hierarchy: The tree that depths count in.
        depths: ``("all",)``, or numbers; none for flat top-1 alone.
        native: Perturb the pictures' own pixels, before the resize.
        templates: Of the labels' prompts; ``None``: the bundle's.
        n: Pictures of each set; ``None`` for all.
        seed: Of the draw and of all attacks.
        n_steps: Of iterative attacks; ``None``: as each attack has it.
        n_queries: Of black-box attacks.
        precisions: Of the deployed encoders, to be attacked, too: ``all``, ``default``, ``int8``,
            ``int8/fp32`` (image/text); none for the float32 torch model alone.
        ensemble: Members of autoattack.
        captions: Table of the pictures' captions, for the attack of that name.
        prompts: A template, for the attack of that name.
        batch_size: Pictures that are attacked together.
        device: Where.
        output: Folder of card, state and report; ``None``: a temporary one.
        resume: Go on with what ``output`` has.
        max_minutes: After which no batch starts.
        keep_outcomes: Whether the card holds what became of every picture.
        write_card: Put the card into the bundle.
        report: Write a report for people into ``output``.
    """

    model: str
    data: tuple[str, ...]
    threats: tuple[ThreatModel, ...]
    attacks: tuple[str, ...] = DEFAULT_ATTACKS
    preset: str | None = None
    root: Path | None = None
    skip_missing: bool = False
    labels: str | None = None
    hierarchy: str | None = None
    depths: tuple[str, ...] = ()
    native: bool = False
    templates: str | None = None
    n: int | None = None
    seed: int = 0
    n_steps: int | None = None
    n_queries: int = 5000
    precisions: tuple[str, ...] = ()
    ensemble: Ensemble = "fare"
    captions: Path | None = None
    prompts: str | None = None
    batch_size: int = 32
    device: str = "auto"
    output: Path | None = None
    resume: bool = True
    max_minutes: float | None = None
    keep_outcomes: bool = True
    write_card: bool = False
    report: bool = False

    def __post_init__(self) -> None:
        if not self.data and self.preset is None:
            raise UsageError(
                "which pictures?",
                hint="--data FOLDER with a folder for each label, or a table path,label",
            )
        if self.data and self.preset is not None:
            raise UsageError("a preset has its own pictures", hint="leave --data or --preset away")
        if not self.threats:
            raise UsageError("which radius?", hint="--eps 1/255,2/255")
        if any(threat.eps <= 0.0 for threat in self.threats):
            raise UsageError("a radius of 0 is no attack", hint="--eps 1/255, for example")
        if self.report and self.output is None:
            raise UsageError("a report needs a folder", hint="--report DIR")
        if self.max_minutes is not None and not self.max_minutes > 0.0:
            raise UsageError(f"--max-minutes {self.max_minutes}", hint="a number above 0")


def parse_threats(text: str, *, norm: Norm = "Linf") -> tuple[ThreatModel, ...]:
    """Read ``1/255,2/255`` or ``L2:0.5``; ascending, each once.

    Raises:
        UsageError: A size that is none, or a whole number of 255ths that forgot them.
    """
    threats = []
    for part in split(text):
        size = part.rpartition(":")[2]
        if parse_size(size) >= 1.0 and "L2" not in part.upper() and norm == "Linf":
            raise UsageError(f"eps {part} is the whole range of a pixel", hint=f"write {size}/255")
        threats.append(ThreatModel.parse(part, norm=norm))
    return tuple(sorted(set(threats), key=lambda threat: (threat.norm, threat.eps)))


def parse_attacks(text: str) -> tuple[str, ...]:
    """Read ``autoattack,pgd,square``; each once, in the given order.

    Raises:
        UsageError: An unknown attack.
    """
    names = tuple(dict.fromkeys(name.casefold() for name in split(text)))
    unknown = [name for name in names if name not in ATTACKS]
    if unknown or not names:
        raise UsageError(
            f"unknown attack {unknown[0]!r}" if unknown else "no attack is named",
            hint=f"choose from {', '.join(ATTACKS)}",
        )
    return names


def split(text: str | None) -> Sequence[str]:
    """Parts between commas, trimmed, empty ones left out."""
    return [part.strip() for part in (text or "").split(",") if part.strip()]
