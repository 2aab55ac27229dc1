"""Clean and robust accuracy of a bundle's precisions, as rows for a card."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from robustzs.bundle.store import Bundle
from robustzs.cards import schema
from robustzs.cards.reading import make_result
from robustzs.errors import EvaluationError, UsageError
from robustzs.labels.templates import TemplateSet
from robustzs.threat import ThreatModel, format_size, parse_size
from robustzs_training.evaluation.attacks import build_attack
from robustzs_training.evaluation.attacks.view import check_bounds, judge
from robustzs_training.evaluation.base import Attack, EvaluationSet, Victim
from robustzs_training.evaluation.deployed.attack import DeployedAttack, Tally
from robustzs_training.evaluation.deployed.grid import check_on_grid
from robustzs_training.evaluation.deployed.variants import (
    N_PROBES,
    BoolArray,
    DeployedVariant,
    Twin,
    Variant,
    twin_of,
    variants_of,
)

Report = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class DeployedSettings:
    """How hard to try.

    Attributes:
        replayed: Attacks on the float32 model, by name.
        on_twin: Attacks on the twin, by name; none: no twin.
        n_steps: Of gradient attacks.
        n_queries: Of Square; 0: no Square.
        seed: Of all randomness.
        eight_bit: Show deployed graphs whole 255ths only.
        batch_size: Pictures that are attacked together.
        threads: Of ONNX Runtime.
    """

    replayed: tuple[str, ...] = ("apgd-ce",)
    on_twin: tuple[str, ...] = ("apgd-ce",)
    n_steps: int = 100
    n_queries: int = 5000
    seed: int = 0
    eight_bit: bool = True
    batch_size: int = 32
    threads: int | None = None

    def __post_init__(self) -> None:
        if self.n_steps < 1 or self.n_queries < 0 or self.batch_size < 1:
            raise UsageError(
                f"{self.n_steps} steps, {self.n_queries} queries, batches of {self.batch_size}",
                hint="at least one step and one picture; 0 queries leave Square out",
            )


DEFAULT = DeployedSettings()


@dataclass(frozen=True, kw_only=True)
class DeployedRow:
    """One precision within one radius.

    Attributes:
        variant: ``int8/fp32``: image, text.
        threat: Norm and radius.
        clean: bool ``[n]``: right before the attack, in this precision.
        robust: bool ``[n]``: right under every part of it, too.
        by: What broke each picture, empty where nothing did.
        attack: The attack.
        twin: What was attacked from inside; ``None``: nothing was.
        reason: Why the number is of a transfer only; empty where it is not.
        tally: What each part broke, and what rounding undid.
        n_queries: Pictures that were shown to the deployed graph.
        seconds: Spent.
    """

    variant: str
    threat: ThreatModel
    clean: BoolArray
    robust: BoolArray
    by: tuple[str, ...]
    attack: DeployedAttack
    twin: Twin | None
    reason: str
    tally: Tally
    n_queries: int
    seconds: float

    @property
    def transfer_only(self) -> bool:
        """See :class:`DeployedAttack`."""
        return self.attack.transfer_only

    def entry(self) -> schema.Attack:
        """What a card says of the attack."""
        return entry_of(self.attack)

    def result(self, dataset: str, *, keep_outcomes: bool = True) -> schema.Result:
        """The row of a card."""
        return make_result(
            self.clean,
            self.robust,
            dataset=dataset,
            attack=self.entry(),
            keep_outcomes=keep_outcomes,
            transfer_only=self.transfer_only,
            precision=self.variant,
        )

    @property
    def sentence(self) -> str:
        """For the card's protocol."""
        text = f"Deployed in {self.variant} (image/text encoder), {self.threat}: "
        if self.reason:
            text += f"transfer only: {self.reason}. "
        if self.twin is not None:
            text += f"the twin is {self.twin.in_words}. "
        parts = ", ".join(f"{name} {n}" for name, n in self.tally.broken.items())
        text += f"Pictures broken by part: {parts or 'none'}."
        grid = self.tally.grid
        if grid.n_broken:
            text += (
                f" Of {grid.n_broken} that broke the float32 model, {grid.n_nearest} do when "
                f"rounded to 8 bits, and {grid.n_repaired} more by another rounding."
            )
        return text


def entry_of(attack: DeployedAttack, *, native: bool = False) -> schema.Attack:
    """What a card says of an attack on a precision.

    Args:
        attack: The attack.
        native: Whether the perturbation lives in the pictures before the resize.
    """
    size = format_size(attack.threat.eps)
    members = list(attack.protocol["members"])
    parts = [f"{member['attack']} on the {member['on']}" for member in members]
    steps = [int(member["n_steps"]) for member in members if member.get("n_steps")]
    return schema.Attack(
        name=attack.name,
        norm=attack.threat.norm,
        eps=size,
        eps_value=parse_size(size),
        n_steps=max(steps) if steps else None,
        seed=attack.seed,
        implementation=f"each picture's worst of {', '.join(parts) or 'nothing'}",
        space="native-pixels" if native else "model-input",
        eight_bit=attack.eight_bit,
        knowledge="transfer" if attack.transfer_only else "white-box",
        saw_defence=not attack.transfer_only,
    )


def evaluate_deployed(
    bundle: Bundle,
    images: EvaluationSet,
    parent: Victim | None,
    threats: Sequence[ThreatModel],
    *,
    templates: TemplateSet,
    variants: Sequence[Variant] | None = None,
    settings: DeployedSettings = DEFAULT,
    progress: Report | None = None,
) -> list[DeployedRow]:
    """Measure a bundle's precisions: each picture's worst of replay, twin and Square.

    Args:
        bundle: The bundle.
        images: Pictures of whole 255ths (with ``eight_bit``), as its preprocessing makes them.
        parent: The float32 torch model over the same labels; ``None`` where the bundle carries no
            weights: nothing can be replayed then, and rows are labelled so.
        threats: Radii.
        templates: Of the labels' prompts.
        variants: ``None`` for every pair of precisions.
        settings: How hard to try.
        progress: Called with pictures done and all.

    Returns:
        A row for each variant and radius.

    Raises:
        UsageError: No pictures or radii, or what the attacks refuse.
    """
    chosen = variants_of(bundle) if variants is None else list(variants)
    n = len(images.keys)
    if not (n and chosen and threats):
        raise UsageError(
            f"{n} pictures, {len(chosen)} variants, {len(threats)} radii",
            hint="give at least one each",
        )
    total = n * len(chosen) * len(threats)
    rows: list[DeployedRow] = []
    for variant in chosen:
        deployed = DeployedVariant(
            bundle, images.labels, templates, variant, threads=settings.threads
        )
        probes = images.pixels(np.arange(min(N_PROBES, n), dtype=np.int64))
        twin, reason = probed_twin(deployed, probes, parent, settings)
        for threat in threats:
            attack = deployed_attack(threat, parent, twin, settings)
            run = _Run(deployed, images, attack, len(rows) * n, total, progress)
            rows.append(run.row(twin, why_transfer(attack, reason, settings), settings.batch_size))
    return rows


def card_rows(
    rows: Sequence[DeployedRow], dataset: str, *, keep_outcomes: bool = True
) -> tuple[list[schema.Attack], list[schema.Result], list[str]]:
    """Attacks (each once), results and sentences for a card's protocol."""
    attacks: dict[tuple[str, str, str], schema.Attack] = {}
    for row in rows:
        entry = row.entry()
        attacks.setdefault((entry.name, entry.norm, entry.eps), entry)
    results = [row.result(dataset, keep_outcomes=keep_outcomes) for row in rows]
    return list(attacks.values()), results, [row.sentence for row in rows]


def deployed_attack(
    threat: ThreatModel,
    parent: Victim | None,
    twin: Twin | None,
    settings: DeployedSettings = DEFAULT,
) -> DeployedAttack:
    """The attack of a precision; its victim is ``DeployedVariant.victim()``."""

    def build(name: str) -> Attack:
        return build_attack(
            name,
            threat,
            n_steps=settings.n_steps,
            n_queries=max(1, settings.n_queries),
            seed=settings.seed,
        )

    return DeployedAttack(
        threat=threat,
        parent=parent,
        replayed=tuple(build(name) for name in settings.replayed),
        twin=None if twin is None else twin.victim,
        on_twin=tuple(build(name) for name in settings.on_twin),
        by_scores=build("square") if settings.n_queries else None,
        n_steps=settings.n_steps,
        eight_bit=settings.eight_bit,
        seed=settings.seed,
    )


def probed_twin(
    deployed: DeployedVariant,
    probes: torch.Tensor,
    parent: Victim | None,
    settings: DeployedSettings = DEFAULT,
) -> tuple[Twin | None, str]:
    """The twin of a precision, or why there is none.

    Args:
        deployed: The precision.
        probes: Clean pixels ``[n, 3, H, W]`` to hold it against the engine.
        parent: The float32 torch model.
        settings: Whether one is attacked at all, and within 8 bits.

    Raises:
        UsageError: ``eight_bit``, and the pixels are not of whole 255ths.
    """
    if not settings.on_twin:
        return None, "no attack on a twin was asked for"
    if settings.eight_bit:
        check_on_grid(probes)
    try:
        return twin_of(deployed, probes, parent), ""
    except EvaluationError as error:
        return None, error.message


def why_transfer(attack: DeployedAttack, no_twin: str, settings: DeployedSettings) -> str:
    """Why the number is of a transfer only; empty where it is not."""
    if not attack.transfer_only:
        return ""
    reasons = [no_twin] if no_twin else []
    if attack.parent is None or not settings.replayed:
        reasons.append("nothing was replayed from the float32 model")
    if not settings.n_queries:
        reasons.append("Square was left out")
    return "; ".join(reasons)


@dataclass
class _Run:
    """One variant within one radius."""

    deployed: DeployedVariant
    images: EvaluationSet
    attack: DeployedAttack
    done: int
    total: int
    progress: Report | None
    by: dict[int, str] = field(default_factory=dict)

    def row(self, twin: Twin | None, reason: str, batch_size: int) -> DeployedRow:
        started, queries = time.monotonic(), self.deployed.n_queries
        n = len(self.images.keys)
        clean, robust = np.zeros(n, np.bool_), np.zeros(n, np.bool_)
        for start in range(0, n, batch_size):
            rows = np.arange(start, min(start + batch_size, n), dtype=np.int64)
            clean[rows], robust[rows] = self._batch(rows)
            if self.progress is not None:
                self.progress(self.done + int(rows[-1]) + 1, self.total)
        return DeployedRow(
            variant=self.deployed.name,
            threat=self.attack.threat,
            clean=clean,
            robust=robust,
            by=tuple(self.by.get(row, "") for row in range(n)),
            attack=self.attack,
            twin=twin,
            reason=reason,
            tally=self.attack.tally,
            n_queries=self.deployed.n_queries - queries,
            seconds=time.monotonic() - started,
        )

    def _batch(
        self, rows: np.ndarray[tuple[int], np.dtype[np.int64]]
    ) -> tuple[BoolArray, BoolArray]:
        pixels = self.images.pixels(rows)
        right = torch.from_numpy(np.array(self.images.right[rows], np.bool_))
        victim = self.deployed.victim()
        with torch.no_grad():
            clean = judge(victim.logits_of(pixels), right)
        standing = clean.nonzero().flatten()
        robust = clean.clone()
        if len(standing):
            kept = rows[standing.numpy()]
            found = self.attack(victim, pixels[standing], right[standing], kept.tolist())
            check_bounds(pixels[standing], found.adversarial, self.attack.threat)
            robust[standing] = ~found.broken.cpu()
            self.by.update(
                (int(row), name) for row, name in zip(kept, found.broken_by, strict=True) if name
            )
        return clean.numpy(), robust.numpy()
