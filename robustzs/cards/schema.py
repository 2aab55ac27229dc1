"""``card.json``: what a model was measured to do, and how.

The JSON Schema in ``robustzs/schemas/card.schema.json`` is generated from ``Card``
(``python -m robustzs.schemas``). Version 1 was a free form, as ``robustzs-lite-clean`` has it:
:meth:`robustzs.bundle.store.Bundle.card` reads both, and :func:`robustzs.cards.rows.measured_rows`
shows both.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from robustzs.answer import Digest, Probability
from robustzs.bundle.manifest import Precision
from robustzs.bundle.store import canonical_json
from robustzs.cards.outcomes import unpack_outcomes
from robustzs.errors import CardError, UsageError
from robustzs.threat import Norm, parse_size

SCHEMA_VERSION = 2

Meaning = Literal["flat", "rollup", "prompt"]
Count = Annotated[int, Field(ge=0)]
PrecisionPair = Annotated[str, Field(pattern=r"^[a-z0-9]+/[a-z0-9]+$")]
Seconds = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]

_ROUNDING = 1e-12


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class MeasuredModel(_Frozen):
    """What was measured."""

    name: str
    digest: Digest = Field(
        description="of the bundle's parts that decide answers; not of its card, since the card "
        "lies in the bundle"
    )
    engine: str = Field(description="what ran it, such as torch or onnxruntime")
    image_precision: Precision = "fp32"
    hardened: bool | None = None


class Dataset(_Frozen):
    """Images and their labels."""

    name: str
    digest: Digest = Field(description="of the images and labels that were drawn, in order")
    n: int = Field(ge=1, description="images that were to be measured")
    n_available: int | None = Field(None, ge=1, description="of which they were drawn")
    seed: Count = Field(0, description="of the draw")
    n_labels: int = Field(ge=1)
    labels_digest: Digest | None = None
    hierarchy: Digest | None = Field(None, description="tree that depths count in")
    templates: str | None = None
    resolution: str = Field("model", description="`model`: resized before the attack; `native`")
    synthetic: bool = False


class Attack(_Frozen):
    """How images were perturbed, and what the attacker knew."""

    name: str = Field(description="such as autoattack, apgd-ce, pgd, square")
    norm: Norm = "Linf"
    eps: str = Field(description="as people write it, such as 1/255, in units of pixels in [0, 1]")
    eps_value: float = Field(ge=0.0, allow_inf_nan=False)
    n_steps: Count | None = None
    step_size: float | None = Field(None, gt=0.0)
    n_restarts: int = Field(1, ge=1)
    seed: Count = 0
    loss: str | None = Field(None, description="such as ce, dlr, or the mass of an ancestor")
    implementation: str = Field(description="package and version, or ours")
    space: Literal["model-input", "native-pixels"] = Field(
        "model-input", description="where the perturbation lives: after the resize, or before it"
    )
    eight_bit: bool = Field(False, description="adversarial images are whole 255ths, as in a PNG")
    knowledge: Literal["white-box", "black-box", "transfer"] = "white-box"
    saw_defence: bool = Field(
        description="the attack ran against the model as deployed, defence included; false: "
        "through another model, which says little"
    )

    @model_validator(mode="after")
    def _one_size(self) -> Attack:
        value = _size(self.eps)
        if abs(value - self.eps_value) > _ROUNDING:
            raise ValueError(f"eps {self.eps} is {value!r}, and eps_value {self.eps_value!r}")
        return self


class Interval(_Frozen):
    """A confidence interval of a proportion."""

    low: Probability
    high: Probability
    confidence: float = Field(0.95, gt=0.0, lt=1.0)
    method: Literal["wilson"] = "wilson"


class Outcomes(_Frozen):
    """Which images were right: bits in base64, in the order of the dataset."""

    clean: str
    robust: str


class Result(_Frozen):
    """Accuracy before and under one attack, at one depth or of flat top-1."""

    dataset: str
    attack: str
    norm: Norm = "Linf"
    eps: str
    depth: Count | None = Field(None, description="null: flat top-1 among the labels")
    meaning: Meaning = Field(
        description="flat: flat top-1, or its ancestor at the depth; rollup: the most probable "
        "node of the depth, summed up from the leaves; prompt: the depth's own texts"
    )
    attacked_depth: Count | None = Field(
        None, description="depth whose loss was attacked; null: the labels"
    )
    attacked_meaning: Meaning = "flat"
    n: int = Field(ge=1)
    n_clean: Count = Field(description="right before the attack")
    n_robust: Count = Field(description="right before and under it")
    clean_accuracy: Probability
    robust_accuracy: Probability
    clean_interval: Interval
    interval: Interval = Field(description="of the robust accuracy")
    metrics: dict[str, float | None] = Field(
        default_factory=dict, description="of robustzs.metrics, under attack"
    )
    clean_metrics: dict[str, float | None] = Field(default_factory=dict)
    outcomes: Outcomes | None = None
    transfer_only: bool = Field(
        False, description="of a quantised precision: attacked through the fp32 model alone"
    )
    precision: PrecisionPair | None = Field(
        None,
        description="of the deployed encoders, image/text, such as fp32/int8; null: verdicts are "
        "of the engine that the card names",
    )

    @property
    def key(self) -> tuple[object, ...]:
        """What tells results of one card apart."""
        attacked = (self.attacked_depth, self.attacked_meaning)
        measured = (self.depth, self.meaning)
        attack = (self.attack, self.norm, parse_size(self.eps))
        return (self.dataset, self.precision, *attack, *measured, *attacked)

    @model_validator(mode="after")
    def _adds_up(self) -> Result:
        _size(self.eps)
        if not self.n_robust <= self.n_clean <= self.n:
            raise ValueError(
                f"{self.n_robust} right under attack, {self.n_clean} right before it and "
                f"{self.n} images contradict each other"
            )
        for name, count, accuracy, interval in (
            ("clean_accuracy", self.n_clean, self.clean_accuracy, self.clean_interval),
            ("robust_accuracy", self.n_robust, self.robust_accuracy, self.interval),
        ):
            _check_share(name, count, self.n, accuracy, interval)
        if self.depth is None and self.meaning != "flat":
            raise ValueError(f"the meaning {self.meaning!r} needs a depth")
        if self.outcomes is not None:
            _check_outcomes(self, self.outcomes)
        return self


class DeployedAccuracy(_Frozen):
    """Accuracy on clean images of a bundle's encoders as they are deployed, without an attack."""

    dataset: str
    precision: PrecisionPair = Field(description="image/text, such as fp32/int8")
    n: int = Field(ge=1)
    n_clean: Count
    clean_accuracy: Probability
    clean_interval: Interval
    n_as_measured: Count = Field(
        description="images with the same label on top as in the model that was attacked"
    )

    @model_validator(mode="after")
    def _adds_up(self) -> DeployedAccuracy:
        if not max(self.n_clean, self.n_as_measured) <= self.n:
            raise ValueError(f"{self.n_clean} right and {self.n_as_measured} alike of {self.n}")
        _check_share(
            "clean_accuracy", self.n_clean, self.n, self.clean_accuracy, self.clean_interval
        )
        return self


class Average(_Frozen):
    """Flat top-1 under one attack, averaged over datasets: each set counts the same."""

    attack: str
    norm: Norm = "Linf"
    eps: str
    datasets: tuple[str, ...] = Field(min_length=2, description="that it is over")
    left_out: tuple[str, ...] = Field(
        (), description="measured, and no part of it: models of the line are trained on them"
    )
    n_wanted: int | None = Field(
        None,
        ge=2,
        description="sets of the preset's average; more than `datasets`: some are missing",
    )
    clean_accuracy: Probability
    robust_accuracy: Probability


class Check(_Frozen):
    """A check of whether numbers can be trusted."""

    name: str
    passed: bool
    message: str = ""


class Timings(_Frozen):
    """How long it took; no part of the card's digest."""

    seconds: Seconds
    started: str | None = None
    machine: str | None = None
    parts: dict[str, Seconds] = Field(default_factory=dict)


class Card(_Frozen):
    """A robustness card."""

    kind: Literal["robustzs-card"] = "robustzs-card"
    schema_version: Literal[2] = 2
    model: MeasuredModel
    robustness: str = Field(description="one line for lists of models")
    protocol: tuple[str, ...] = Field((), description="what the fields do not say, in sentences")
    preset: str | None = Field(None, description="the paper whose protocol this is")
    datasets: tuple[Dataset, ...] = Field(min_length=1)
    attacks: tuple[Attack, ...] = Field(min_length=1)
    results: tuple[Result, ...] = ()
    deployed: tuple[DeployedAccuracy, ...] = Field(
        (), description="clean accuracy through the exported graphs, in every precision"
    )
    averages: tuple[Average, ...] = Field(
        (),
        description="over several datasets, of a complete run; without intervals, for sets "
        "are chosen, not drawn",
    )
    checks: tuple[Check, ...] = ()
    versions: dict[str, str] = Field(default_factory=dict, description="of libraries")
    digests: dict[str, Digest] = Field(default_factory=dict, description="of recipes and the like")
    complete: bool = Field(description="false: the run was cut off, and numbers are of a part")
    incomplete_reason: str | None = None
    timings: Timings | None = None

    @model_validator(mode="after")
    def _hangs_together(self) -> Card:
        datasets = {dataset.name: dataset for dataset in self.datasets}
        attacks = {(attack.name, attack.norm, attack.eps) for attack in self.attacks}
        if len(datasets) != len(self.datasets) or len(attacks) != len(self.attacks):
            raise ValueError("two datasets, or two attacks of one size, have the same name")
        seen = set()
        for result in self.results:
            if result.key in seen:
                raise ValueError(f"the result {result.key} stands there twice")
            seen.add(result.key)
            if result.dataset not in datasets:
                raise ValueError(f"a result names the dataset {result.dataset!r}, which is missing")
            if (result.attack, result.norm, result.eps) not in attacks:
                raise ValueError(
                    f"a result names the attack {result.attack!r} of {result.norm} {result.eps}, "
                    "which is missing"
                )
            self._check_n(result, datasets[result.dataset].n)
        self._check_deployed(datasets)
        self._check_ending()
        self._check_sizes()
        self._check_averages()
        return self

    def _check_averages(self) -> None:
        """Every average is that of the rows that it names."""
        rows = {each.key: each for each in self.results}
        for each in self.averages:
            size = (each.norm, parse_size(each.eps))
            keys = [
                (name, None, each.attack, *size, None, "flat", None, "flat")
                for name in each.datasets
            ]
            missing = [key[0] for key in keys if key not in rows]
            if missing or len(set(keys)) != len(keys) or {*each.left_out} & {*each.datasets}:
                raise ValueError(f"an average is over {each.datasets}, without rows: {missing}")
            for field in ("clean_accuracy", "robust_accuracy"):
                mean = sum(getattr(rows[key], field) for key in keys) / len(keys)
                if abs(mean - getattr(each, field)) > _ROUNDING:
                    raise ValueError(f"an average's {field} is {getattr(each, field)}, not {mean}")

    def _check_deployed(self, datasets: Mapping[str, Dataset]) -> None:
        pairs = [(each.dataset, each.precision) for each in self.deployed]
        if len(set(pairs)) != len(pairs):
            raise ValueError("a precision stands there twice")
        for each in self.deployed:
            if each.dataset not in datasets:
                raise ValueError(
                    f"a precision names the dataset {each.dataset!r}, which is missing"
                )
            self._check_n(each, datasets[each.dataset].n)
            for result in self.results:
                key = (result.dataset, result.precision, result.n)
                same = key == (each.dataset, each.precision, each.n) and result.depth is None
                if same and result.n_clean != each.n_clean:
                    raise ValueError(
                        f"{each.precision} is right {each.n_clean} times, and {result.n_clean} "
                        "times before an attack"
                    )

    def _check_n(self, result: Result | DeployedAccuracy, n: int) -> None:
        if result.n > n or (self.complete and result.n != n):
            raise ValueError(
                f"a result has n {result.n}, and the dataset {result.dataset!r} {n}"
                + ("; only the card of a run that was cut off may have fewer" * self.complete)
            )

    def _check_ending(self) -> None:
        if self.complete and not self.results:
            raise ValueError("a complete card has no results")
        if self.complete == (self.incomplete_reason is not None):
            raise ValueError("incomplete_reason says why a card is not complete, and only then")
        failed = [check.name for check in self.checks if not check.passed]
        if failed and (self.results or self.deployed):
            raise ValueError(f"results were published although checks failed: {failed}")

    def _check_sizes(self) -> None:
        """One question has one clean accuracy, whatever the attack was."""
        clean: dict[tuple[object, ...], int] = {}
        for result in self.results:
            asked = (result.depth, result.meaning, result.n)
            question = (result.dataset, result.precision, *asked)
            if clean.setdefault(question, result.n_clean) != result.n_clean:
                raise ValueError(
                    f"{question} was right {clean[question]} times before one attack and "
                    f"{result.n_clean} times before another"
                )

    @property
    def digest(self) -> str:
        """sha256 of the canonical form without timings: equal for a rerun with the same seed."""
        return hashlib.sha256(self.canonical()).hexdigest()

    def canonical(self) -> bytes:
        """The one byte form: sorted keys, no white space, no timings."""
        return canonical_json(self.model_dump(mode="json", exclude={"timings"}))

    def to_json(self) -> str:
        """The file's text: sorted keys, indented, timings included."""
        document: dict[str, Any] = self.model_dump(mode="json")
        return json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def _size(text: str) -> float:
    """``parse_size`` whose error pydantic collects."""
    try:
        return parse_size(text)
    except UsageError as error:
        raise ValueError(error.message) from error


def _check_share(name: str, count: int, n: int, accuracy: float, interval: Interval) -> None:
    if abs(count / n - accuracy) > _ROUNDING:
        raise ValueError(f"{name} {accuracy!r} is not {count} of {n}")
    if not interval.low <= accuracy <= interval.high:
        raise ValueError(
            f"{name} {accuracy!r} is outside its interval [{interval.low!r}, {interval.high!r}]"
        )


def _check_outcomes(result: Result, outcomes: Outcomes) -> None:
    try:
        clean = unpack_outcomes(outcomes.clean, result.n)
        robust = unpack_outcomes(outcomes.robust, result.n)
    except CardError as error:
        raise ValueError(error.message) from error
    if int(clean.sum()) != result.n_clean or int(robust.sum()) != result.n_robust:
        raise ValueError("the outcomes of single images do not add up to the counts")
    if (robust & ~clean).any():
        raise ValueError("an image is right under attack and was wrong before it")
