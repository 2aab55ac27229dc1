"""A bundle's precisions in ONNX Runtime, and a differentiable twin of each.

A variant is a pair of an image encoder and a text encoder. Text features are constants to whoever
attacks a picture: they are taken from the variant's own text graph, quantised or not, so that an
image tower of float32 with text of int8 has an exact twin: the float32 tower with exactly those
class features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch

from robustzs.backends.onnx import OnnxBackend
from robustzs.bundle.manifest import Precision
from robustzs.bundle.store import Bundle
from robustzs.errors import EvaluationError, UsageError
from robustzs.features import TextFeatureCache, TextFeatures
from robustzs.labels import LabelSet
from robustzs.labels.templates import TemplateSet
from robustzs.scoring import class_features, scale_logits
from robustzs.scoring import similarities as numpy_similarities
from robustzs.tokenizer import Tokenizer
from robustzs_training.evaluation.attacks.view import judge
from robustzs_training.evaluation.base import EvaluationSet, TensorFunction, Victim
from robustzs_training.evaluation.deployed.graph import GraphTwin, facts_of
from robustzs_training.evaluation.deployed.quantised_operators import QUANTISED
from robustzs_training.evaluation.victim import similarities

BoolArray = npt.NDArray[np.bool_]
Float32Array = npt.NDArray[np.float32]
MIN_COSINE = 0.95
"""A twin whose features are further than this from the engine's is no twin."""
N_PROBES = 16


@dataclass(frozen=True, kw_only=True)
class Variant:
    """Precisions of the two encoders."""

    image: Precision
    text: Precision

    @property
    def name(self) -> str:
        """``fp32/int8``: image, then text."""
        return f"{self.image}/{self.text}"


def variants_of(bundle: Bundle) -> list[Variant]:
    """All pairs of precisions that a bundle carries, its default pair first."""
    manifest = bundle.manifest
    default = (manifest.default_image_precision, manifest.default_text_precision)
    pairs = [(i, t) for i in manifest.image_encoders for t in manifest.text_encoders]
    pairs.sort(key=lambda pair: (pair != default, pair))
    return [Variant(image=image, text=text) for image, text in pairs]


class DeployedVariant:
    """One variant with the classes that it chooses from, in ONNX Runtime: scores, no gradients.

    Where the graph takes scales from a whole batch, pictures are shown to it one by one, so that
    no verdict depends on neighbours.

    Args:
        bundle: The bundle.
        labels: What to choose from.
        templates: Of their prompts.
        variant: Which precisions; ``None`` for the bundle's default.
        threads: Of ONNX Runtime; ``None`` for all of this process.
        provider: Device of ONNX Runtime.
    """

    def __init__(
        self,
        bundle: Bundle,
        labels: LabelSet,
        templates: TemplateSet,
        variant: Variant | None = None,
        *,
        threads: int | None = None,
        provider: str = "cpu",
    ) -> None:
        self.variant = variant or variants_of(bundle)[0]
        self.manifest = bundle.manifest
        self.templates = templates
        self.backend = OnnxBackend(
            bundle,
            device=provider,
            threads=threads,
            image_precision=self.variant.image,
            text_precision=self.variant.text,
        )
        self._text = TextFeatures(
            bundle.manifest,
            self.backend,
            lambda: Tokenizer.from_bundle(bundle),
            TextFeatureCache(),
        )
        self.classes = np.array(self._text.classes(labels.prompts, templates))
        self.path = bundle.file(bundle.manifest.image_encoders[self.variant.image])
        self.facts = facts_of(self.path)
        self.n_queries = 0

    @property
    def name(self) -> str:
        """``fp32/int8``."""
        return self.variant.name

    def features(self, pixels: torch.Tensor) -> Float32Array:
        """Raw image features ``[B, D]``."""
        array = pixels.detach().cpu().float().contiguous().numpy()
        self.n_queries += len(array)
        if self.facts.batch_dependent:
            rows = [self.backend.encode_image(array[i : i + 1]) for i in range(len(array))]
            return np.concatenate(rows)
        return self.backend.encode_image(array)

    def logits(self, pixels: torch.Tensor) -> torch.Tensor:
        """Deployed logits ``[B, C]`` before temperature, on the pixels' device."""
        return self._logits(pixels, self.classes)

    def _logits(self, pixels: torch.Tensor, classes: Float32Array) -> torch.Tensor:
        found = numpy_similarities(self.features(pixels), classes, self.manifest.geometry)
        logits = scale_logits(found, logit_scale=self.manifest.logit_scale)
        return torch.from_numpy(logits).to(pixels.device)

    def text_for(self, victim: Victim) -> Victim:
        """A white box that compares with texts as this variant's own text graph encodes them.

        Texts are constants to whoever perturbs a picture, so nothing is lost for an attack.

        Args:
            victim: The torch model; only its image features are used.
        """
        geometry, scale = self.manifest.geometry, self.manifest.logit_scale

        def compared(classes: Float32Array) -> TensorFunction:
            known = torch.from_numpy(np.array(classes)).to(victim.device)
            return lambda pixels: (
                scale * similarities(victim.image_features_of(pixels), known, geometry)
            )

        def logits_for(texts: Sequence[str]) -> TensorFunction:
            return compared(class_features(self._text.raw(texts)[:, None], geometry))

        return replace(
            victim,
            logits_of=compared(self.classes),
            logits_for=logits_for,
            logits_among=lambda texts: compared(self._text.classes(texts, self.templates)),
        )

    def victim(self) -> Victim:
        """A score oracle: any black-box attack can be pointed at it, none that needs gradients."""

        def logits_for(texts: Sequence[str]) -> TensorFunction:
            classes = class_features(self._text.raw(texts)[:, None], self.manifest.geometry)
            return lambda pixels: self._logits(pixels, classes)

        def logits_among(prompts: Sequence[str]) -> TensorFunction:
            classes = np.array(self._text.classes(prompts, self.templates))
            return lambda pixels: self._logits(pixels, classes)

        return Victim(
            logits_of=self.logits,
            image_features_of=lambda pixels: torch.from_numpy(self.features(pixels)),
            logits_for=logits_for,
            device=torch.device("cpu"),
            logits_among=logits_among,
        )


@dataclass(frozen=True, kw_only=True)
class Twin:
    """What stands for a variant where gradients are needed.

    Attributes:
        victim: White box; its class features are those of the variant's own text graph.
        kind: ``torch``: the float32 tower itself. ``graph``: the ONNX graph in torch, with its own
            weights and straight-through rounding.
        cosine: The smallest between its raw features and the engine's, on clean pictures.
        n_same: Pictures of these with the same label on top.
        n: Pictures compared.
    """

    victim: Victim
    kind: str
    cosine: float
    n_same: int
    n: int

    @property
    def in_words(self) -> str:
        """For cards."""
        what = {
            "torch": "the float32 torch tower with class features of the deployed text graph",
            "graph": "the ONNX graph in torch, weights as in the file, rounding straight-through",
        }[self.kind]
        return (
            f"{what}; on {self.n} clean pictures its features have a cosine of at least "
            f"{self.cosine:.4f} to the engine's, and {self.n_same} of its labels are the same"
        )


def twin_of(deployed: DeployedVariant, probes: torch.Tensor, parent: Victim | None = None) -> Twin:
    """The differentiable twin of a variant, held against the engine on clean pictures.

    Args:
        deployed: The variant.
        probes: Clean pixels ``[n, 3, H, W]``.
        parent: The float32 torch model; stands for a float32 image encoder, if it is given.

    Raises:
        EvaluationError: The graph has an operator without counterpart, or the twin's features are
            not the engine's.
    """
    quantised = deployed.facts.kinds & {*QUANTISED, "com.microsoft:MatMulNBits"}
    device = torch.device("cpu") if parent is None else parent.device
    if parent is not None and deployed.variant.image == "fp32" and not quantised:
        kind, features_of = "torch", parent.image_features_of
    else:
        kind, features_of = "graph", GraphTwin(deployed.path, device=device)
    manifest = deployed.manifest
    classes = torch.from_numpy(deployed.classes).to(device)

    def logits_of(pixels: torch.Tensor) -> torch.Tensor:
        features = features_of(pixels).float()
        return manifest.logit_scale * similarities(features, classes, manifest.geometry)

    oracle = deployed.victim()
    base = oracle if parent is None else parent
    victim = replace(base, logits_of=logits_of, image_features_of=features_of, device=device)
    with torch.no_grad():
        ours = features_of(probes.to(device)).float().cpu()
        theirs = torch.from_numpy(deployed.features(probes))
        cosine = float(torch.nn.functional.cosine_similarity(ours, theirs, dim=1).min())
        tops = [logits_of(probes.to(device)).argmax(1).cpu(), deployed.logits(probes).argmax(1)]
    if not cosine >= MIN_COSINE:
        raise EvaluationError(
            f"the twin of {deployed.path.name} is none: the cosine of its features to the engine's "
            f"falls to {cosine:.3f}",
            hint="measure this precision by transfer and by Square, and say so",
        )
    same = int((tops[0] == tops[1]).sum())
    return Twin(victim=victim, kind=kind, cosine=cosine, n_same=same, n=len(probes))


# ---- clean accuracy ------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class CleanVerdicts:
    """What a variant answers on clean pictures.

    Attributes:
        correct: bool ``[n]``.
        top: int64 ``[n]``, the label on top.
        n_as_torch: Pictures with the same label on top as in torch; ``None`` where torch was not
            asked.
    """

    correct: BoolArray
    top: npt.NDArray[np.int64]
    n_as_torch: int | None = None

    @property
    def accuracy(self) -> float:
        """Share of correct ones."""
        return float(self.correct.mean())


@torch.no_grad()
def deployed_clean(
    bundle: Bundle,
    images: EvaluationSet,
    templates: TemplateSet,
    *,
    parent: Victim | None = None,
    variants: Sequence[Variant] | None = None,
    batch_size: int = 32,
    threads: int | None = None,
) -> dict[str, CleanVerdicts]:
    """Clean verdicts through the exported graphs.

    Args:
        bundle: The bundle.
        images: Pictures and what is right for them.
        templates: Of the labels' prompts.
        parent: The float32 torch model over the same labels, to compare with.
        variants: ``None`` for every pair of precisions.
        batch_size: Pictures at a time.
        threads: Of ONNX Runtime.

    Returns:
        By variant, such as ``fp32/int8``.

    Raises:
        UsageError: No pictures, or no variants.
    """
    chosen = variants_of(bundle) if variants is None else list(variants)
    n = len(images.keys)
    if not n or not chosen:
        raise UsageError(f"{n} pictures and {len(chosen)} variants", hint="give at least one each")
    models = [
        DeployedVariant(bundle, images.labels, templates, variant, threads=threads)
        for variant in chosen
    ]
    right = torch.from_numpy(np.array(images.right, np.bool_))
    tops = np.empty((len(models) + 1, n), np.int64)
    correct = np.empty((len(models), n), np.bool_)
    for start in range(0, n, batch_size):
        rows = np.arange(start, min(start + batch_size, n), dtype=np.int64)
        pixels = images.pixels(rows)
        for place, model in enumerate(models):
            logits = model.logits(pixels)
            tops[place, rows] = logits.argmax(dim=1).cpu().numpy()
            correct[place, rows] = judge(logits, right[rows]).cpu().numpy()
        if parent is not None:
            logits = parent.logits_of(pixels.to(parent.device))
            tops[-1, rows] = logits.argmax(dim=1).cpu().numpy()
    return {
        model.name: CleanVerdicts(
            correct=correct[place],
            top=tops[place],
            n_as_torch=None if parent is None else int((tops[place] == tops[-1]).sum()),
        )
        for place, model in enumerate(models)
    }
