"""From verdicts to a card."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal

import numpy as np

from robustzs._version import __version__
from robustzs.bundle.manifest import BundleManifest
from robustzs.bundle.store import canonical_json
from robustzs.cards import schema
from robustzs.cards.averages import averages_of
from robustzs.cards.reading import make_deployed, make_result, measured_digest
from robustzs.errors import CardError
from robustzs.labels.templates import TemplateSet
from robustzs.threat import ThreatModel, format_size, parse_size
from robustzs_training.evaluation.base import Attack, EvaluationSet
from robustzs_training.evaluation.deployed import DeployedAttack
from robustzs_training.evaluation.deployed.evaluate import entry_of
from robustzs_training.evaluation.hierarchical.report import depth_results
from robustzs_training.evaluation.hierarchical.scores import Scorer, Scores
from robustzs_training.evaluation.run import CleanVerdicts, IntArray, Notes, Verdicts
from robustzs_training.evaluation.trials import Trial

WORST = "worst"
"""Name of the result of all attacks together: a picture stands if it stands under each."""
_PACKAGES = (
    "torch",
    "torchvision",
    "open_clip_torch",
    "timm",
    "transformers",
    "pyautoattack",
    "onnxruntime",
    "pillow",
)
_BLACK_BOX = ("square",)


@dataclass(frozen=True, kw_only=True)
class Judged:
    """One set of pictures and what became of it.

    Attributes:
        images: The pictures.
        trials: With what is known of each; ``None`` where nothing was done.
        templates: Of the labels' prompts.
        clean: What deployed precisions answer on clean pictures, by ``image/text``.
        scorer: Asks at depths of a tree.
        theta: Threshold of the bundle's answers, for metrics that need one.
        noted: The scorer's notes on rows of a trial, before and under the attack.
        native: Whether the perturbation lives in the pictures before the resize.
    """

    images: EvaluationSet
    trials: Sequence[tuple[Trial, Verdicts | None]]
    templates: TemplateSet
    clean: Mapping[str, CleanVerdicts] = field(default_factory=dict)
    scorer: Scorer | None = None
    theta: float = 0.0
    noted: Callable[[Trial, IntArray], tuple[Notes, Notes]] | None = None
    native: bool = False


@dataclass(frozen=True, kw_only=True)
class Circumstances:
    """What a card says besides numbers.

    Attributes:
        manifest: Of the bundle that was measured.
        checks: Of whether the numbers can be trusted.
        protocol: Sentences.
        preset: The paper whose protocol this is.
        not_averaged: Sets that are no part of the average.
        n_averaged: Sets that the protocol's average is over.
        reason: Why the run was cut off; ``None`` where it was not.
        keep_outcomes: Whether the card holds what became of every picture.
        timings: How long it took.
    """

    manifest: BundleManifest
    checks: Sequence[schema.Check] = ()
    protocol: Sequence[str] = ()
    preset: str | None = None
    not_averaged: Sequence[str] = ()
    n_averaged: int | None = None
    reason: str | None = None
    keep_outcomes: bool = True
    timings: schema.Timings | None = None


def card_of(judged: Sequence[Judged], about: Circumstances) -> schema.Card:
    """The card of a measurement.

    A failed check leaves the card without results.

    Raises:
        CardError: The parts contradict each other.
    """
    attacks: dict[tuple[str, str, str], schema.Attack] = {}
    protocols: list[Any] = []
    results: list[schema.Result] = []
    deployed: list[schema.DeployedAccuracy] = []
    complete = True
    for each in judged:
        for trial, _ in each.trials:
            entry = attack_entry(trial.attack, trial.threat, native=each.native)
            attacks.setdefault((entry.name, entry.norm, entry.eps), entry)
            protocols.append(dict(trial.attack.protocol))
        found, whole = _results(each, attacks, keep=about.keep_outcomes)
        results += found
        deployed += _deployed(each)
        complete = complete and whole
    failed = [check.name for check in about.checks if not check.passed]
    reason = about.reason
    if failed:
        results, deployed, complete = [], [], False
        reason = f"checks refuse the numbers: {', '.join(failed)}"
    elif complete:
        reason = None
    elif reason is None:
        raise CardError("verdicts are missing, and nothing says why", hint="give a reason")
    return schema.Card(
        model=schema.MeasuredModel(
            name=about.manifest.name,
            digest=measured_digest(about.manifest),
            engine="torch",
            hardened=hardened(about.manifest),
        ),
        robustness=_in_one_line(results, reason),
        protocol=tuple(about.protocol),
        preset=about.preset,
        datasets=tuple(_dataset(each) for each in judged),
        attacks=tuple(attacks.values()),
        results=tuple(results),
        deployed=tuple(deployed),
        averages=averages_of(
            results if complete else (), left_out=about.not_averaged, n_wanted=about.n_averaged
        ),
        checks=tuple(about.checks),
        versions=versions(),
        digests={
            "attacks": hashlib.sha256(canonical_json({"attacks": protocols})).hexdigest(),
            **{f"templates:{each.images.name}": each.templates.digest for each in judged},
        },
        complete=complete,
        incomplete_reason=reason,
        timings=about.timings,
    )


def attack_entry(attack: Attack, threat: ThreatModel, *, native: bool = False) -> schema.Attack:
    """What a card says of an attack."""
    if isinstance(attack, DeployedAttack):
        return entry_of(attack, native=native)
    protocol = attack.protocol
    members = [dict(member) for member in protocol.get("members", ())] or [dict(protocol)]
    losses = [str(member["loss"]) for member in members if member.get("loss")]
    steps = {int(member["n_steps"]) for member in members if member.get("n_steps") is not None}
    knowledge: Literal["white-box", "black-box"] = (
        "black-box" if attack.name in _BLACK_BOX else "white-box"
    )
    return schema.Attack(
        name=attack.name,
        norm=threat.norm,
        eps=format_size(threat.eps),
        eps_value=parse_size(format_size(threat.eps)),
        n_steps=max(steps) if steps else None,
        step_size=parse_size(protocol["step_size"]) if protocol.get("step_size") else None,
        n_restarts=max(int(member.get("n_restarts", 1)) for member in members),
        seed=int(protocol.get("seed", 0)),
        loss=", then ".join(losses) or None,
        implementation=str(protocol.get("source") or members[0].get("source") or "ours"),
        space="native-pixels" if native else "model-input",
        knowledge=knowledge,
        saw_defence=True,
    )


def in_sentences(attacks: Sequence[Attack]) -> list[str]:
    """What each attack does, for people; one sentence for each name."""
    said: dict[str, str] = {}
    for attack in attacks:
        members = attack.protocol.get("members") or [attack.protocol]
        parts = []
        for member in members:
            words = [f"{member.get('n_steps') or member.get('n_queries')}"]
            words.append("queries" if member.get("n_queries") else "steps")
            words.append(f"from {member.get('n_restarts', 1)} start(s)")
            if member.get("n_targets"):
                words.append(f"for each of {member['n_targets']} targets")
            if member.get("on"):
                words.append(f"on the {member['on']}")
            parts.append(f"{member.get('attack')}: {' '.join(words)}")
        said.setdefault(attack.name, f"{attack.name} is {'; then '.join(parts)}.")
    return list(said.values())


def versions() -> dict[str, str]:
    """Of everything that has a part in the numbers."""
    found = {
        "robustzs": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
    }
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


# ---- parts ---------------------------------------------------------------------------------------


def _results(
    judged: Judged, attacks: dict[tuple[str, str, str], schema.Attack], *, keep: bool
) -> tuple[list[schema.Result], bool]:
    """Results of one set, and whether nothing is missing."""
    results, whole = [], True
    together: dict[tuple[Any, ...], list[tuple[schema.Attack, Trial, Verdicts]]] = {}
    for trial, verdicts in judged.trials:
        whole = whole and verdicts is not None and verdicts.complete
        if verdicts is None or len(verdicts.rows) == 0:
            continue
        entry = attack_entry(trial.attack, trial.threat, native=judged.native)
        results += _rows(judged, entry, trial, verdicts, keep=keep)
        key = (trial.threat.norm, trial.threat.eps, trial.target.name)
        together.setdefault(key, []).append((entry, trial, verdicts))
    for members in together.values():
        worst = _worst(members) if len(members) > 1 else None
        if worst is not None:
            entry, trial, verdicts = worst
            attacks.setdefault((entry.name, entry.norm, entry.eps), entry)
            results.append(_result(judged, entry, trial, verdicts, keep=keep))
    return results, whole


def _worst(
    members: list[tuple[schema.Attack, Trial, Verdicts]],
) -> tuple[schema.Attack, Trial, Verdicts] | None:
    """All attacks on one target within one radius; only where they saw the same pictures."""
    first = members[0][2]
    if any(not np.array_equal(first.rows, verdicts.rows) for _, _, verdicts in members):
        return None
    names = [entry.name for entry, _, _ in members]
    entry = members[0][0].model_copy(
        update={
            "name": WORST,
            "n_steps": None,
            "step_size": None,
            "n_restarts": 1,
            "loss": None,
            "implementation": f"each picture's worst of {', '.join(names)}",
            "knowledge": "white-box",
        }
    )
    robust = np.logical_and.reduce([verdicts.robust for _, _, verdicts in members])
    by = {row: name for _, _, each in reversed(members) for row, name in each.by.items()}
    verdicts = Verdicts(
        rows=first.rows,
        clean=first.clean,
        robust=robust,
        by=by,
        complete=all(each.complete for _, _, each in members),
        n_attacked=max(each.n_attacked for _, _, each in members),
        n_unconfirmed=sum(each.n_unconfirmed for _, _, each in members),
        seconds=sum(each.seconds for _, _, each in members),
    )
    return entry, members[0][1], verdicts


def _rows(
    judged: Judged, entry: schema.Attack, trial: Trial, verdicts: Verdicts, *, keep: bool
) -> list[schema.Result]:
    """What an attack did to its own question; with a tree, to all questions."""
    scorer = judged.scorer
    if scorer is None or judged.noted is None or trial.target.precision is not None:
        return [_result(judged, entry, trial, verdicts, keep=keep)]
    before, under = judged.noted(trial, verdicts.rows)
    return depth_results(
        Scores.from_notes(before, scorer.names),
        Scores.from_notes(under, scorer.names),
        scorer.tree,
        dataset=judged.images.name,
        attack=entry,
        theta=judged.theta,
        attacked=trial.target.name,
        robust=verdicts.robust,
        rule=scorer.rule,
        keep_outcomes=keep,
    )


def _result(
    judged: Judged, entry: schema.Attack, trial: Trial, verdicts: Verdicts, *, keep: bool
) -> schema.Result:
    target = trial.target
    return make_result(
        verdicts.clean,
        verdicts.robust,
        dataset=judged.images.name,
        attack=entry,
        depth=target.depth,
        meaning=target.meaning,
        attacked_depth=target.depth,
        attacked_meaning=target.meaning,
        keep_outcomes=keep,
        transfer_only=isinstance(trial.attack, DeployedAttack) and trial.attack.transfer_only,
        precision=target.precision,
    )


def _deployed(judged: Judged) -> list[schema.DeployedAccuracy]:
    return [
        make_deployed(found.right, found.same, dataset=judged.images.name, precision=precision)
        for precision, found in judged.clean.items()
    ]


def _dataset(judged: Judged) -> schema.Dataset:
    images = judged.images
    said = images.description
    available = said.get("n_available")
    return schema.Dataset(
        name=images.name,
        digest=images.digest,
        n=len(images.keys),
        n_available=available if isinstance(available, int) else None,
        seed=int(said.get("seed") or 0),
        n_labels=len(images.labels),
        labels_digest=images.labels.digest,
        hierarchy=None if judged.scorer is None else judged.scorer.tree.digest,
        templates=judged.templates.name,
        resolution="native" if judged.native else "model",
        synthetic=bool(said.get("synthetic", False)),
    )


def hardened(manifest: BundleManifest) -> bool | None:
    """Whether a bundle says that it was hardened; ``None`` where it says nothing."""
    training = manifest.training
    if training is None:
        return None
    return training.get("threat") is not None


def _in_one_line(results: Sequence[schema.Result], reason: str | None) -> str:
    own = [r for r in results if r.depth is None and r.attacked_depth is None]
    flat = [result for result in own if result.precision is None]
    if not flat:
        return f"not measured: {reason}" if reason else "not measured"
    first = flat[0]
    # The worst of all attacks speaks, or the first that was named.
    names = [result.attack for result in flat if result.dataset == first.dataset]
    chosen = WORST if WORST in names else first.attack
    of = [r for r in flat if r.dataset == first.dataset and r.attack == chosen]
    robust = ", ".join(f"{r.robust_accuracy:.1%} at {r.norm} {r.eps}" for r in of)
    text = (
        f"{first.dataset}: {first.clean_accuracy:.1%} clean; under {chosen} {robust} (n {first.n})"
    )
    deployed = [r for r in own if r.precision is not None and r.dataset == first.dataset]
    for name in dict.fromkeys(result.precision for result in deployed):
        sizes = ", ".join(
            f"{r.robust_accuracy:.1%} at {r.norm} {r.eps}" + " (transfer only)" * r.transfer_only
            for r in deployed
            if r.precision == name
        )
        text += f"; deployed in {name} {sizes}"
    return f"{text}; cut off: {reason}" if reason else text
