"""One image under attack: an 8-bit PNG that anybody can classify again.

The attack runs inside the torch model; the verdict is the deployed one, of the PNG as it was read
back through the ordinary pipeline. A PNG holds whole 255ths only, so the victim rounds pixels to
them before it looks, with gradients passed straight through: what the attack finds is what the file
holds, and rounding cannot undo it afterwards.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from robustzs.answer import Answer
from robustzs.bundle.registry import resolve_model
from robustzs.bundle.store import Bundle
from robustzs.classifier import Classifier
from robustzs.errors import BundleWeightsMissingError, EvaluationError, UnknownNodeError, UsageError
from robustzs.hierarchy.tree import Hierarchy
from robustzs.images.config import PreprocessConfig
from robustzs.images.sources import ImageSource
from robustzs.labels import LabelSet
from robustzs.threat import ThreatModel
from robustzs_training.evaluation.attacks import ATTACKS, build_attack
from robustzs_training.evaluation.base import Attack, Victim
from robustzs_training.evaluation.eight_bit import (
    LEVELS,
    UInt8Array,
    as_pixels,
    framed,
    on_the_grid,
    rounded,
    whole_levels,
)
from robustzs_training.evaluation.place import find_device
from robustzs_training.evaluation.victim import victim_of
from robustzs_training.export.sources import SourceRequest, load_source
from robustzs_training.factory import adapter_of, tokenizer_for

BoolArray = npt.NDArray[np.bool_]
Progress = Callable[[int, int], None]
"""Told how often the attack looked at the model, and how often it may."""

SINGLE_ATTACKS = tuple(name for name in ATTACKS if name not in ("captions", "prompts"))
"""Attacks that need nothing but the image, the labels and the model."""
LEAD = 1.0
"""By how much, in logits after temperature, a wrong label is to lead first: e times as probable, so
that the flip is plain to see and survives the rounding of another engine."""


@dataclass(frozen=True, kw_only=True)
class SingleRequest:
    """What to attack, and how.

    Attributes:
        image: The image.
        model: A bundle with weights: name or folder.
        labels: To choose from; ``None`` as :class:`~robustzs.classifier.Classifier` has it.
        hierarchy: Trees; ``None`` likewise. The first one counts.
        templates: Of prompts; ``None``: the model's own.
        theta: Stop threshold; ``None``: the model's own.
        threat: Norm, which must be Linf, and radius; rounded down to whole 255ths.
        attack: One of :data:`SINGLE_ATTACKS`.
        n_steps: Of the attack; ``None``: its own.
        seed: Of its randomness.
        label: What the image shows, as a label or an inner node; ``None``: the model's own top-1.
        target: What the model shall answer instead, likewise; ``None``: anything wrong.
        on_ambiguous: ``error`` or ``first``, for labels with several senses.
        on_unknown: ``error`` or ``attach``, for labels that WordNet lacks.
        device: Where the attack runs.
        threads: Of the deployed engine; ``None``: all.
    """

    image: ImageSource
    model: str = "robustzs-lite"
    labels: LabelSet | None = None
    hierarchy: Sequence[str] | None = None
    templates: str | None = None
    theta: float | None = None
    threat: ThreatModel
    attack: str = "apgd-ce"
    n_steps: int | None = 100
    seed: int = 0
    label: str | None = None
    target: str | None = None
    on_ambiguous: str = "first"
    on_unknown: str = "error"
    device: str = "cpu"
    threads: int | None = None


@dataclass(frozen=True, kw_only=True)
class SingleOutcome:
    """What became of it. Verdicts are of the deployed model, on the PNG as read back.

    Attributes:
        png: The file's bytes.
        size: Height and width of the file.
        model_size: Height and width of the model's input, which lies in the middle of the file.
        before: The answer to the clean image.
        after: The answer to the PNG.
        label: Name of what is right.
        target: Name of what was to be answered; ``None`` where anything wrong was.
        already_wrong: The clean image's top-1 was wrong (or the target) before; nothing was done.
        turned: Top-1 was right and is wrong, or is the target.
        true_before: Whether the hierarchical answer, which may be unspecific, was true.
        true_after: Whether it is true of the PNG.
        label_probability: Of all right labels together, before and after.
        target_probability: Of the target's labels, before and after.
        levels: Largest change of a value, in 255ths.
        share_changed: Of pixels that differ in at least one value.
        eps: The radius that was used.
        attack: What was done, in numbers.
        seconds: The attack took.
    """

    png: bytes
    size: tuple[int, ...]
    model_size: tuple[int, ...]
    before: Answer
    after: Answer
    label: str
    target: str | None
    already_wrong: bool
    turned: bool
    true_before: bool
    true_after: bool
    label_probability: tuple[float, float]
    target_probability: tuple[float, float] | None
    levels: int
    share_changed: float
    eps: str
    attack: Mapping[str, Any]
    seconds: float

    @property
    def parts_at(self) -> int | None:
        """Place in both paths of the first node that differs; ``None``: the same path."""
        pairs = zip(self.before.path, self.after.path, strict=False)
        for place, (one, other) in enumerate(pairs):
            if one.id != other.id:
                return place
        shorter, longer = sorted((len(self.before.path), len(self.after.path)))
        return None if shorter == longer else shorter


def attack_image(request: SingleRequest, *, progress: Progress | None = None) -> SingleOutcome:
    """Attack one image.

    Raises:
        BundleWeightsMissingError: The bundle cannot be attacked.
        UsageError: A radius below 1/255, another norm, an attack that one image does not do for.
        UnknownNodeError: No such label.
        RobustZSError: Whatever cannot be read.
    """
    levels = whole_levels(request.threat)
    if request.attack not in SINGLE_ATTACKS:
        raise UsageError(
            f"the attack {request.attack!r} is not for one image",
            hint=f"choose from {', '.join(SINGLE_ATTACKS)}",
        )
    if request.target is not None and request.attack == "features":
        raise UsageError(
            "the attack 'features' has no target: it only leads away from the clean image",
            hint="leave --target away, or choose apgd-ce",
        )
    bundle = Bundle.load(resolve_model(request.model))
    if bundle.manifest.weights is None or bundle.manifest.open_clip_config is None:
        raise BundleWeightsMissingError(
            f"the bundle {bundle.manifest.name} carries no weights: nothing can be attacked from "
            "inside",
            hint="export its checkpoint again with `robustzs export --weights`",
        )
    threat = ThreatModel(eps=levels / LEVELS)
    attack = build_attack(request.attack, threat, n_steps=request.n_steps, seed=request.seed)
    with _classifier(request, bundle) as classifier:
        return _Duel(request, classifier, attack, levels).outcome(progress)


def leading_by(victim: Victim, right: torch.Tensor, lead: float) -> Victim:
    """The victim with the right labels' logits raised: wrong only where another leads by more.

    Args:
        victim: The model.
        right: bool ``[1, C]``.
        lead: In its logits.
    """

    def logits_of(pixels: torch.Tensor) -> torch.Tensor:
        logits = victim.logits_of(pixels)
        return logits + lead * right.to(logits)

    return replace(victim, logits_of=logits_of)


def columns_of(tree: Hierarchy, text: str) -> tuple[str, BoolArray]:
    """Name and leaves, bool ``[n_leaves]``, of what a person calls by a label or inner node.

    Raises:
        UnknownNodeError: The tree has no such node, or several.
    """
    try:
        node = tree.find(text)
    except UnknownNodeError as error:
        node = _by_alias(tree, text, error)
    found = np.zeros(tree.n_leaves, np.bool_)
    found[tree.leaf_start[node] : tree.leaf_end[node]] = True
    return tree.names[node], found


def _by_alias(tree: Hierarchy, text: str, error: UnknownNodeError) -> int:
    wanted = text.casefold().replace("_", " ").strip()
    places = [
        node
        for node, names in enumerate(tree.aliases)
        if wanted in [name.casefold().replace("_", " ") for name in names]
    ]
    if len(places) != 1:
        raise error
    return places[0]


def _classifier(request: SingleRequest, bundle: Bundle) -> Classifier:
    return Classifier.load(
        bundle.path,
        labels=request.labels,
        hierarchy=None if request.hierarchy is None else list(request.hierarchy),
        templates=request.templates,
        theta=request.theta,
        on_ambiguous="error" if request.on_ambiguous == "error" else "first",
        on_unknown="attach" if request.on_unknown == "attach" else "error",
        threads=request.threads,
    )


class _Duel:
    """One image against one model."""

    def __init__(
        self, request: SingleRequest, classifier: Classifier, attack: Attack, levels: int
    ) -> None:
        self.request = request
        self.classifier = classifier
        self.attack = attack
        self.levels = levels
        self.tree = classifier.hierarchy
        pixels = classifier.preprocess(request.image)
        self.clean: UInt8Array = np.rint(pixels * LEVELS).astype(np.uint8).transpose(1, 2, 0)
        self.before, self.probs_before = self._judge(pixels, request.image.name)
        text = self.before.flat_top1.id if request.label is None else request.label
        self.label, self.labelled = columns_of(self.tree, text)
        self.target: str | None = None
        # An image is right while the largest logit's label is among these.
        self.right = self.labelled
        if request.target is not None:
            self.target, wanted = columns_of(self.tree, request.target)
            self.right = ~wanted
            if bool((wanted & self.labelled).any()):
                raise UsageError(
                    f"the target {self.target!r} is right: the image shows {self.label!r}",
                    hint="name another target",
                )
        if bool(self.right.all()) or not bool(self.right.any()):
            raise UsageError(
                f"nothing can be wrong among these {len(self.right)} labels",
                hint="give more labels, or another --label",
            )

    def _judge(
        self, pixels: npt.NDArray[np.float32], name: str
    ) -> tuple[Answer, npt.NDArray[np.float32]]:
        features = self.classifier.embedder.backend.encode_image(pixels[None])
        scores = self.classifier.scorer(features)
        return self.classifier.classify_features(features, [name])[0], scores.leaf_probs[0]

    def _stands(self, probs: npt.NDArray[np.float32]) -> bool:
        return bool(self.right[int(probs.argmax())])

    def outcome(self, progress: Progress | None) -> SingleOutcome:
        """Attack, save in memory, read back, judge."""
        started = time.perf_counter()
        already_wrong = not self._stands(self.probs_before)
        adversarial = self.clean
        if not already_wrong:
            adversarial = self._attacked(progress)
        seconds = time.perf_counter() - started
        png = self._png(adversarial)
        after, probs = self._read_back(png, adversarial)
        change = np.abs(adversarial.astype(np.int16) - self.clean.astype(np.int16))
        if int(change.max()) > self.levels:
            raise EvaluationError(
                f"a perturbation of {int(change.max())}/255, allowed {self.levels}/255",
                hint="this is a fault of the attack, not of the model; report it",
            )
        target = ~self.right if self.target is not None else None
        return SingleOutcome(
            png=png,
            size=framed(adversarial, self._config).shape[:2],
            model_size=self.clean.shape[:2],
            before=self.before,
            after=after,
            label=self.label,
            target=self.target,
            already_wrong=already_wrong,
            turned=not already_wrong and not self._stands(probs),
            true_before=self._is_true(self.before),
            true_after=self._is_true(after),
            label_probability=self._mass(self.labelled, probs),
            target_probability=None if target is None else self._mass(target, probs),
            levels=int(change.max()),
            share_changed=float((change.max(axis=2) > 0).mean()),
            eps=f"{self.levels}/{LEVELS}",
            attack=self.attack.protocol,
            seconds=seconds,
        )

    def _attacked(self, progress: Progress | None) -> UInt8Array:
        """The plain flip if there is one, else any, else the last try."""
        victim = self._victim(progress)
        device = victim.device
        right = torch.from_numpy(self.right)[None].to(device)
        pixels = torch.from_numpy(self.clean.transpose(2, 0, 1).copy()).float()[None] / LEVELS
        lead = LEAD * self.classifier.temperature
        found = self.clean
        for attacked in (leading_by(victim, right, lead), victim):
            proposal = self.attack(attacked, pixels.to(device), right, [0])
            found = rounded(proposal.adversarial[0])
            probs = self._judge(as_pixels(found), "")[1]
            if not self._stands(probs):
                break
        return found

    def _victim(self, progress: Progress | None) -> Victim:
        source = load_source(SourceRequest(model=str(self.classifier.embedder.bundle.path)))
        manifest = self.classifier.embedder.manifest
        victim = victim_of(
            adapter_of(source).to(find_device(self.request.device)),
            tokenizer_for(source),
            self.classifier.labels,
            self.classifier.templates,
            manifest.geometry,
            logit_scale=manifest.logit_scale,
        )
        if progress is not None:
            victim = _counted(victim, progress, 2 * ((self.request.n_steps or 100) + 2))
        return on_the_grid(victim)

    def _png(self, image: UInt8Array) -> bytes:
        stream = io.BytesIO()
        Image.fromarray(framed(image, self._config)).save(stream, "PNG", optimize=True)
        return stream.getvalue()

    @property
    def _config(self) -> PreprocessConfig:
        return self.classifier.embedder.manifest.preprocess

    def _read_back(self, png: bytes, image: UInt8Array) -> tuple[Answer, npt.NDArray[np.float32]]:
        pixels = self.classifier.preprocess(png)
        if not np.array_equal(pixels, as_pixels(image)):
            raise UsageError(
                f"preprocessing of {self.classifier.embedder.manifest.name} changes an image of "
                "the model's own size: no file can hold the perturbation as it was made",
                hint="use a bundle whose resize is not smaller than its input",
            )
        return self._judge(pixels, "adversarial")

    def _is_true(self, answer: Answer) -> bool:
        if answer.rejected:
            return False
        node = self.tree.index(answer.prediction.id)
        inside = np.zeros_like(self.labelled)
        inside[self.tree.leaf_start[node] : self.tree.leaf_end[node]] = True
        above = not bool((self.labelled & ~inside).any())
        return above or not bool((inside & ~self.labelled).any())

    def _mass(self, columns: BoolArray, after: npt.NDArray[np.float32]) -> tuple[float, float]:
        sums = [
            float(probs[columns].astype(np.float64).sum()) for probs in (self.probs_before, after)
        ]
        return min(sums[0], 1.0), min(sums[1], 1.0)


def _counted(victim: Victim, progress: Progress, most: int) -> Victim:
    calls = 0

    def logits_of(pixels: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += 1
        progress(min(calls, most), most)
        return victim.logits_of(pixels)

    return replace(victim, logits_of=logits_of)
