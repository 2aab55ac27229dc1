"""Protocols of papers, as plain data: which pictures, at which resolution, under which attacks.

Each was read from the code that its authors published. Where code, README and paper differ, the
notes say what was chosen. The numbers of a preset are float32 throughout, which QT-AFT's own are
not: theirs run under autocast to half precision.

| | ``fare`` | ``qt-aft`` | ``tecoa`` |
|---|---|---|---|
| sets | 13, and ImageNet | 18, and ImageNet | 16, and ImageNet |
| pictures of each | 1000 | 1000 | all |
| templates | CLIP-Benchmark's, of each set | ``This is a photo of a {}`` | the same |
| resize | the model's own | 256, crop 224, bilinear | 256, crop 224, bilinear |
| native pixels | CIFAR-10, CIFAR-100, STL-10 | the same | the same |
| attacks | apgd-ce (5 restarts), apgd-t | apgd-ce, apgd-dlr | PGD-100; apgd-ce, apgd-dlr |
| eps | 2/255, 4/255 | 4/255 | 1/255 |
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from robustzs.errors import DatasetNotFoundError, UsageError
from robustzs.images.config import PreprocessConfig
from robustzs.labels import LabelSet
from robustzs.labels.templates import TemplateSet, get_templates
from robustzs_training.evaluation.sets.catalogue import CATALOGUE, NamedDataset, check_root
from robustzs_training.evaluation.sets.draws import Sampling
from robustzs_training.evaluation.sets.opening import open_set
from robustzs_training.evaluation.sets.published_names import (
    as_tecoa,
    published_templates,
    with_published_names,
)
from robustzs_training.evaluation.sets.source_set import SourceSet

Resize = Literal["model", "256-bilinear"]
Templates = Literal["published", "paper"]
Names = Literal["published", "tecoa"]

_SHOWN_MISSING = 30
_RESIZE_RATIO = 256 / 224
_NATIVE = ("cifar10", "cifar100", "stl10")


@dataclass(frozen=True, kw_only=True)
class AttackSetting:
    """An attack of a protocol, as ``build_attack`` takes it.

    Attributes:
        name: Of the attack.
        eps: Radii, Linf, as people write them.
        n_steps: Iterations.
        step_size: Of PGD; ``None`` where the attack chooses.
        momentum: Of PGD, likewise.
        rescale: Whether the attack sees logits scaled to one gap, or as deployed, as authors did.
        n_restarts: ``None``: as the ensemble says, else one.
        ensemble: Members of ``autoattack``; two labels leave apgd-ce alone.
        verdict: Whether the paper's robust accuracy is this attack's.
    """

    name: str
    eps: tuple[str, ...]
    n_steps: int
    step_size: str | None = None
    momentum: float | None = None
    rescale: bool = True
    n_restarts: int | None = None
    ensemble: Literal["fare", "qt-aft"] | None = None
    verdict: bool = True


@dataclass(frozen=True, kw_only=True)
class Preset:
    """A paper's protocol.

    Attributes:
        name: For ``--preset``.
        paper: Whose.
        datasets: Names in the catalogue, in the paper's order.
        not_zero_shot: Those of them that models of this line are trained on: told, but no part of
            the paper's average.
        native: Those whose own pixels are attacked.
        n: Pictures of each set; ``None`` for all.
        seed: Of the draw.
        sampling: How they are drawn.
        templates: ``published``: CLIP-Benchmark's for each set; ``paper``: one sentence.
        names: Class names.
        resize: How larger pictures become the model's input.
        attacks: The verdict first.
        notes: What was chosen where sources differ, for the card's protocol.
    """

    name: str
    paper: str
    datasets: tuple[str, ...]
    not_zero_shot: tuple[str, ...] = ("imagenet1k",)
    native: tuple[str, ...] = _NATIVE
    n: int | None
    seed: int
    sampling: Sampling
    templates: Templates
    names: Names = "published"
    resize: Resize
    attacks: tuple[AttackSetting, ...]
    notes: tuple[str, ...] = ()

    @property
    def n_averaged(self) -> int:
        """Sets that its average is over, where all of them are there."""
        return len(set(self.datasets) - set(self.not_zero_shot))

    def preprocess(self, own: PreprocessConfig) -> PreprocessConfig:
        """How a picture becomes pixels of a model whose own rule is ``own``."""
        if self.resize == "model":
            return own
        height, width = own.image_size
        return PreprocessConfig(
            image_size=(height, width),
            resize_size=round(_RESIZE_RATIO * min(height, width)),
            interpolation="bilinear",
        )


@dataclass(frozen=True, kw_only=True)
class Present:
    """A data set of a preset that is on disk.

    Attributes:
        dataset: Which.
        spec: What :func:`open_set` takes.
    """

    dataset: NamedDataset
    spec: str


_TECOA_SETS = (
    *("cifar10", "cifar100", "stl10", "sun397", "cars", "food101", "pets", "flowers"),
    *("country211", "dtd", "eurosat", "fgvc_aircraft", "pcam", "hateful_memes", "imagenet1k"),
    *("caltech101", "caltech256"),
)
_QT_AFT_SETS = (
    *("cifar10", "cifar100", "stl10", "sun397", "cars", "food101", "pets", "flowers", "dtd"),
    *("eurosat", "fgvc_aircraft", "pcam", "imagenet1k", "caltech101", "imagenet_sketch"),
    *("imagenet-r", "imagenetv2", "imagenet-o", "imagenet-a"),
)
_FARE_SETS = (
    *("imagenet1k", "cifar10", "stl10", "cifar100", "cars", "caltech101", "pets", "flowers"),
    *("dtd", "eurosat", "fgvc_aircraft", "pcam", "imagenet-r", "imagenet_sketch"),
)

PRESETS = {
    "fare": Preset(
        name="fare",
        paper='Schlarmann et al., "Robust CLIP", ICML 2024 (FARE)',
        datasets=_FARE_SETS,
        n=1000,
        seed=0,
        sampling="robustvlm",
        templates="published",
        resize="model",
        attacks=(
            AttackSetting(name="autoattack", eps=("2/255", "4/255"), n_steps=100, ensemble="fare"),
        ),
        notes=(
            "FARE's code asks AutoAttack for version 'custom': apgd-ce has 5 restarts, apgd-t one "
            "with 9 targets; a set of two classes gets apgd-ce alone",
            "FARE's table has 1000 pictures of each set and averages over the 13 without ImageNet; "
            "its script for ImageNet alone takes 5000 by default",
            "ImageNet's classes have the names of robustzs, which tells two missiles and two "
            "sunglasses apart that CLIP-Benchmark's names do not",
        ),
    ),
    "qt-aft": Preset(
        name="qt-aft",
        paper='Waseda et al., "Quality Text, Robust Vision", ACM MM 2025 (QT-AFT)',
        datasets=_QT_AFT_SETS,
        n=1000,
        seed=42,
        sampling="torch-randperm",
        templates="paper",
        resize="256-bilinear",
        attacks=(
            AttackSetting(name="autoattack", eps=("4/255",), n_steps=100, ensemble="qt-aft"),
            AttackSetting(
                name="pgd",
                eps=("4/255",),
                n_steps=10,
                step_size="1/255",
                momentum=0.0,
                rescale=False,
                verdict=False,
            ),
        ),
        notes=(
            "the code loads 19 sets, 18 without ImageNet; the paper names 16 zero-shot sets and "
            "the code does not say which: all 19 are measured",
            "SUN397, EuroSAT and Caltech101 are drawn from whole sets there, since torchvision "
            "gives them without a split; copies that bring a split give theirs",
            "the paper's numbers ran under autocast to half precision, these in float32",
        ),
    ),
    "tecoa": Preset(
        name="tecoa",
        paper='Mao et al., "Understanding Zero-Shot Adversarial Robustness", ICLR 2023 (TeCoA)',
        datasets=_TECOA_SETS,
        n=None,
        seed=0,
        sampling="numpy",
        templates="paper",
        names="tecoa",
        resize="256-bilinear",
        attacks=(
            AttackSetting(
                name="pgd",
                eps=("1/255",),
                n_steps=100,
                step_size="1/255",
                momentum=0.0,
                rescale=False,
            ),
            AttackSetting(
                name="autoattack",
                eps=("1/255",),
                n_steps=100,
                ensemble="qt-aft",
                verdict=False,
            ),
        ),
        notes=(
            "the paper counts 16 zero-shot sets; its code lists 17, ImageNet among them, which its "
            "models are trained on: all 17 are measured, and the average is over the 16",
            "the paper attacks by PGD-100 at 1/255; the code's defaults are 5 steps at 2/255",
            "PGD with 100 steps is the paper's verdict, not ours: autoattack is run beside it",
            "HatefulMemes is squashed to the model's size there, and cropped here",
        ),
    ),
}
"""All presets by name."""


def get_preset(name: str) -> Preset:
    """A preset by its name.

    Raises:
        UsageError: There is none of that name.
    """
    key = name.strip().casefold().replace("_", "-")
    try:
        return PRESETS[key]
    except KeyError:
        raise UsageError(
            f"there is no preset {name!r}", hint=f"choose from {', '.join(PRESETS)}"
        ) from None


def present(preset: Preset, root: Path) -> tuple[tuple[Present, ...], tuple[NamedDataset, ...]]:
    """Which of a preset's data sets lie below ``root``, and which do not.

    Raises:
        DatasetNotFoundError: There is no such folder, or none of them is there.
    """
    check_root(root)
    found, missing = [], []
    for name in preset.datasets:
        dataset = CATALOGUE[name]
        spec = dataset.locate(root)
        if spec is None:
            missing.append(dataset)
        else:
            found.append(Present(dataset=dataset, spec=spec))
    if not found:
        raise DatasetNotFoundError(
            f"none of the {len(missing)} data sets of the preset {preset.name!r} is in "
            f"{str(root)!r}",
            hint=missing_text(tuple(missing)),
        )
    return tuple(found), tuple(missing)


def missing_text(missing: tuple[NamedDataset, ...]) -> str:
    """How to get data sets, a line each; empty where none is missing."""
    return "\n".join(
        f"{dataset.name}: looked for {', '.join(dataset.places)}; get it with: {dataset.how_to_get}"
        for dataset in missing[:_SHOWN_MISSING]
    )


def templates_for(preset: Preset, here: Present) -> TemplateSet:
    """The templates that a preset has for a data set.

    Raises:
        MissingExtraError: They are CLIP-Benchmark's, whose package is not installed.
        TemplateError: It has none.
    """
    if preset.templates == "paper":
        return get_templates("paper")
    kind, _, path = here.spec.partition(":")
    beside = Path(path) if kind == "webdataset" else None
    return published_templates(here.dataset.key, beside=beside)


def open_preset_set(
    preset: Preset,
    here: Present,
    *,
    preprocess: PreprocessConfig,
    cache: Path,
    n: int | None = None,
) -> SourceSet:
    """Open a data set as a preset has it.

    Args:
        preset: The protocol.
        here: The data set.
        preprocess: The model's own rule.
        cache: Keeps what is unpacked or indexed.
        n: Fewer pictures than the preset asks for, to try it out; no longer its protocol.

    Raises:
        DataError: The data set cannot be used.
        MissingExtraError: Its class names are CLIP-Benchmark's, whose package is not installed.
    """
    return open_set(
        here.spec,
        preprocess=preset.preprocess(preprocess),
        cache=cache,
        labels="own",
        n=preset.n if n is None else n,
        seed=preset.seed,
        sampling=preset.sampling,
        split=here.dataset.split if here.spec.startswith("torchvision:") else None,
        resolution="native" if here.dataset.name in preset.native else "model",
        name=here.dataset.name,
        rename=_rename(preset, here),
    )


def _rename(preset: Preset, here: Present) -> Callable[[LabelSet], LabelSet] | None:
    key = here.dataset.names_key
    # Shards bring the published names with them.
    published = key is not None and here.spec.startswith("torchvision:")

    def rename(labels: LabelSet) -> LabelSet:
        if preset.names == "tecoa":
            return as_tecoa(labels)
        return with_published_names(labels, key) if published and key is not None else labels

    return rename
