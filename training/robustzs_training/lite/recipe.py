"""The steps of the recipe, from two published towers to a trained open_clip model.

Slow steps that do not depend on the split are stored in a work folder and found there again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from safetensors.torch import load_file, save_file

from robustzs.hierarchy.noun_index import NounIndex
from robustzs_training.lite.heldout import retrieval
from robustzs_training.lite.joint_space import Array, JointSpace, build_joint_space, unit
from robustzs_training.lite.nouns import ImageNetClass, load_imagenet_classes, training_nouns
from robustzs_training.lite.pictures import (
    IMAGE_SIZE,
    compose,
    iter_openclipart,
    iter_openmoji,
    render_drawing,
    to_pixels,
    wallpaper_crops,
)
from robustzs_training.lite.text_layers import store_states
from robustzs_training.lite.text_targets import NounEmbeddings, noun_targets
from robustzs_training.lite.texts import class_sentences, noun_sentences, taken_words
from robustzs_training.lite.towers import (
    build_lite_model,
    encode_sentences,
    imagenet_head,
    pooled_features,
)
from robustzs_training.lite.train_text import (
    TextTraining,
    refit_projection,
    train_text,
    trained_text_parameters,
    warm_up_projection,
)

if TYPE_CHECKING:
    from torch import nn

_LOGGER = logging.getLogger(__name__)
N_WALLPAPER_CROPS = 1500
_CLASS_WEIGHT = 20.0


@dataclass(frozen=True, kw_only=True)
class Material:
    """What both runs of the recipe start from.

    Attributes:
        classes: ImageNet's classes, in class order.
        features: ``[n, 1280]`` pooled features of unlabelled training-side pictures.
        embeddings: Frozen MiniLM embeddings of the nouns.
    """

    classes: list[ImageNetClass]
    features: Array
    embeddings: NounEmbeddings

    def class_rows(self) -> npt.NDArray[np.int64]:
        """``[1000]`` row of each class among the nouns."""
        row_of = {wnid: row for row, wnid in enumerate(self.embeddings.wnids)}
        return np.array([row_of[names.wnid] for names in self.classes])


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """A trained model and the space that it was trained into."""

    model: Any
    space: JointSpace
    targets: Array


def gather_material(work: Path) -> Material:
    """Read or make pooled features and MiniLM embeddings."""
    work.mkdir(parents=True, exist_ok=True)
    classes = load_imagenet_classes()
    wnids = training_nouns(classes)
    features = _stored(work / "features.npy", lambda: _batched(_training_pixels()))
    prompts = {row.wnid: row.prompt for row in classes}
    index = NounIndex.load()
    names = [prompts.get(wnid) or index.get(wnid).lemmas[0] for wnid in wnids]
    glosses = [index.get(wnid).gloss for wnid in wnids]
    return Material(
        classes=classes,
        features=features.astype(np.float64),
        embeddings=NounEmbeddings(
            wnids=wnids,
            names=_stored(work / "names.npy", lambda: _minilm(names)),
            glosses=_stored(
                work / "glosses.npy",
                lambda: _minilm([f"{n}: {g}" for n, g in zip(names, glosses, strict=True)]),
            ),
        ),
    )


def fit(
    material: Material,
    reference: npt.NDArray[np.int64],
    settings: TextTraining,
    checkpoint: Path,
) -> Fitted:
    """Build the joint space from ``reference`` classes and train the text tower into it.

    Trained weights are rounded to float16 at the end: what is measured is what is shipped.

    Args:
        material: Features and embeddings.
        reference: Classes whose directions may be used.
        settings: Of the training.
        checkpoint: Where the trained layers lie after the last step; if it is there, they are
            read and only the last matrix is fitted again.
    """
    weight, bias = imagenet_head()
    space = build_joint_space(weight, bias, material.features, reference)
    targets = noun_targets(space, material.embeddings, material.classes, reference)
    model: Any = build_lite_model(space)
    text = model.text
    known = class_sentences(material.classes, reference, space.targets)
    taken = taken_words([material.classes[i] for i in reference])
    others = noun_sentences(material.embeddings.wnids, targets, taken)
    pools = [(s, store_states(text, s.texts, settings.n_layers)) for s in (known, others)]
    trained = trained_text_parameters(text, settings.n_layers)
    if checkpoint.exists():
        text.load_state_dict(load_file(checkpoint), strict=False)
    else:
        _warm_up(text, material, targets, reference, settings)
        train_text(text, pools[0], pools[1], settings)
        save_file({name: p.detach() for name, p in trained.items()}, checkpoint)
    _round_to_half(trained)
    refit_projection(text, pools[0], pools[1], settings)
    _round_to_half(trained)
    return Fitted(model=model.eval().requires_grad_(False), space=space, targets=targets)


def measure_retrieval(
    fitted: Fitted, material: Material, heldout: npt.NDArray[np.int64]
) -> dict[str, dict[str, float]]:
    """Find the held-out class directions from their texts, among themselves.

    Reports the Gaussian process that teaches (``teacher``), then the text tower given the prompt
    (``name``), the single template (``single``), "prompt: gloss" (``gloss``), and the mean of the
    three unit vectors (``ensemble``).
    """
    directions = fitted.space.directions[heldout]
    rows = material.class_rows()[heldout]
    names = [material.classes[i] for i in heldout]
    index = NounIndex.load()
    texts = {
        "name": [row.prompt for row in names],
        "single": [f"a photo of a {row.prompt}." for row in names],
        "gloss": [f"{row.prompt}: {index.get(row.wnid).gloss}" for row in names],
    }
    out = {"teacher": retrieval(fitted.targets[rows], directions)}
    encoded = []
    for kind, sentences in texts.items():
        features = encode_sentences(fitted.model.text, sentences).astype(np.float64)
        encoded.append(unit(features))
        out[kind] = retrieval(features, directions)
    out["ensemble"] = retrieval(sum(encoded[1:], encoded[0]), directions)
    return out


def _round_to_half(parameters: Mapping[str, nn.Parameter]) -> None:
    for parameter in parameters.values():
        parameter.data = parameter.data.half().float()


def _warm_up(
    text: Any,
    material: Material,
    targets: Array,
    reference: npt.NDArray[np.int64],
    settings: TextTraining,
) -> None:
    weights = np.ones(len(targets))
    weights[material.class_rows()[reference]] = _CLASS_WEIGHT
    embeddings = material.embeddings
    warm_up_projection(
        text.proj,
        np.concatenate([embeddings.names, embeddings.glosses]).astype(np.float32),
        np.concatenate([targets, targets]).astype(np.float32),
        np.concatenate([weights, weights]),
        settings,
    )


def _minilm(sentences: list[str]) -> npt.NDArray[np.float32]:
    from open_clip.hf_model import HFTextEncoder

    from robustzs_training.backbones import MINILM
    from robustzs_training.noise import quiet_libraries

    with quiet_libraries():
        text = HFTextEncoder(str(MINILM.path), 384, pooler_type="mean_pooler").eval()
    return encode_sentences(text, sentences)


def _training_pixels() -> Iterator[npt.NDArray[np.uint8]]:
    """Crops of wallpapers; every drawing once on white and once on such a crop."""
    grounds = wallpaper_crops(N_WALLPAPER_CROPS, seed=0)
    yield from (to_pixels(ground) for ground in grounds)
    generator = np.random.default_rng(1)
    white = Image.new("RGB", (IMAGE_SIZE, IMAGE_SIZE), "white")
    for source in (iter_openclipart(), iter_openmoji()):
        for entry in source:
            drawing = render_drawing(entry.path)
            if drawing is None:
                continue
            yield to_pixels(compose(drawing, white, generator, 0.9))
            ground = grounds[int(generator.integers(len(grounds)))]
            scale = float(generator.uniform(0.55, 0.95))
            yield to_pixels(compose(drawing, ground, generator, scale))


def _batched(
    pixels: Iterable[npt.NDArray[np.uint8]], batch_size: int = 32
) -> npt.NDArray[np.float32]:
    batch: list[npt.NDArray[np.uint8]] = []
    features = []
    for picture in pixels:
        batch.append(picture)
        if len(batch) == batch_size:
            features.append(pooled_features(np.stack(batch)))
            batch = []
    if batch:
        features.append(pooled_features(np.stack(batch)))
    return np.concatenate(features)


def _stored(path: Path, make: Callable[[], npt.NDArray[np.float32]]) -> npt.NDArray[np.float32]:
    if path.exists():
        stored: npt.NDArray[np.float32] = np.load(path, allow_pickle=False)
        return stored
    _LOGGER.info("making %s", path.name)
    made = make()
    partial = path.with_suffix(".partial.npy")
    np.save(partial, made)
    partial.replace(path)
    return made
