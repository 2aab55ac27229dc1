"""Every objective hardens a real model: a short run, attacked from outside before and after.

``make test-training``: four minutes each on two CPU cores. The quickstart's model and pictures;
what differs between objectives stands in ``RUNS``.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from robustzs_training.assemble import Clock, Place, assemble
from robustzs_training.evaluation import HeldOut, Measured, compare, heldout_of, measure
from robustzs_training.evaluation.victim import head_of
from robustzs_training.factory import adapter_of, load_model, tokenizer_for
from robustzs_training.finish import geometry_of, templates_of
from robustzs_training.loop import Trainer
from robustzs_training.recipe import EvaluatePart, Recipe
from robustzs_training.recipe_files import load_recipe

from robustzs.labels.templates import get_templates
from robustzs.metrics.intervals import PairedDifference, paired_difference

pytestmark = [pytest.mark.training, pytest.mark.timeout(1800)]

# Captions of the training pictures lead quickly, at a high rate, because the distance to the
# original's features holds the tower together. (The quickstart goes slower, for the sake of
# photographs.)
_CAPTIONED = ("schedule.steps=90", "optimizer.lr=2e-3")
# What only holds on to the original's features gains less a step: a larger ball, more steps.
_HOLDING = ("schedule.steps=170", "threat.eps=3/255", "attack.step_size=3.75/255")
# Labels alone hold nothing: at a rate of 1e-3 the tower's activations die within 80 steps and
# every picture gets the same features. A lower rate that rises slowly, a smaller ball, and 23
# kinds of things instead of 284 things with five pictures each.
_SMALL_BALL = ("threat.eps=1/255", "attack.step_size=1.25/255")
_LABELLED = (
    *_SMALL_BALL,
    "data.name=kinds",
    "schedule.steps=150",
    "schedule.warmup_steps=30",
    "optimizer.lr=5e-4",
)
RUNS: dict[str, tuple[str, ...]] = {
    "fare": _HOLDING,
    "sim-clip": _HOLDING,
    "tecoa": _LABELLED,
    "pmg-aft": (*_LABELLED, "schedule.steps=110", "objective.kl_reduction=batchmean"),
    # At the paper's weights the attention maps hold this tower so that it learns one class in 170
    # steps.
    "tga-zsr": (
        *_LABELLED,
        "schedule.steps=130",
        "objective.alpha=0.02",
        "objective.beta=0.0125",
    ),
    # The paper's s = 180 belongs to CLIP's own 100; this tower's is 43. And CLIP is sure of its
    # classes, while this tower's predictions for drawings are nearly uniform, and softened they
    # say nothing: here the targets are sharper than the predictions instead of softer.
    "agft": (
        *_LABELLED,
        "schedule.steps=240",
        "optimizer.lr=4e-4",
        "objective.logit_scale=60",
        "objective.sharpness=3",
    ),
    "qt-aft": (*_CAPTIONED, "objective.caption_weight=1000"),
    # At the usual scale of distances, pictures that all lie far from all texts are brought near
    # first, and the tower died of it at 2.5e-4 and 5e-4.
    "hierarchical": (
        *_LABELLED,
        "schedule.steps=170",
        "schedule.warmup_steps=10",
        "optimizer.lr=2e-4",
        "data.siblings=4",
        "objective.initial_logit_scale=5",
    ),
    "qt-aft-hierarchical": (
        *_CAPTIONED,
        "optimizer.lr=1e-3",
        "data.name=kinds",
        "data.siblings=4",
        "objective.captions.caption_weight=1000",
        "objective.tree_weight=100",
    ),
}
"""Objective -> what its run changes in the quickstart."""


def _recipe(name: str) -> Recipe:
    changes = (f'objective={{"name": "{name}"}}', "run.trackers=[]")
    return load_recipe("quickstart", [*changes, *RUNS[name]])


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def _one_cache(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures and features of captions are made once for all objectives."""
    monkeypatch.setenv("ROBUSTZS_CACHE", str(cache))


@pytest.fixture(scope="module")
def start(cache: Path) -> tuple[HeldOut, EvaluatePart, Measured]:
    """The pictures, and the start model attacked on them."""
    recipe = _recipe("fare")
    source = load_model(recipe.model)
    part = recipe.evaluate
    assert part is not None
    heldout = heldout_of(part, recipe.data, source.preprocess, cache=cache / "data")
    assert heldout is not None
    templates = get_templates(templates_of(recipe, source))
    before = measure(adapter_of(source), tokenizer_for(source), heldout, part, templates)
    return heldout, part, before


def _without_best_class(heldout: HeldOut, before: Measured, after: Measured) -> PairedDifference:
    """The gain on all classes but the one with the most pictures right under attack."""
    robust = after.outcome.robust_correct
    counts = torch.bincount(heldout.labels[robust], minlength=len(heldout.classes))
    rest = heldout.labels != int(counts.argmax())
    return paired_difference(before.outcome.robust_correct[rest].numpy(), robust[rest].numpy())


@pytest.mark.parametrize("name", RUNS)
def test_a_short_run_hardens(
    name: str, start: tuple[HeldOut, EvaluatePart, Measured], tmp_path: Path
) -> None:
    heldout, part, before = start
    recipe = _recipe(name)
    shop = assemble(recipe, Place(device=torch.device("cpu")), clock=Clock())
    try:
        result = Trainer(
            shop.objective,
            shop.loader,
            recipe,
            tmp_path / "run",
            to_batch=shop.to_batch,
            provenance={},
            progress=False,
        ).run()
    finally:
        shop.loader.close()
    geometry = geometry_of(shop.objective)
    after = measure(
        shop.model,
        tokenizer_for(shop.source),
        heldout,
        part,
        get_templates(templates_of(recipe, shop.source)),
        head=head_of(geometry),
    )
    found = compare(before, after)
    rest = _without_best_class(heldout, before, after)
    told = {
        "objective": name,
        "steps": result.steps,
        "seconds": round(result.seconds, 1),
        "without_best_class": [rest.difference, rest.low, rest.high],
        **found,
    }
    if "ROBUSTZS_REAL_RUNS" in os.environ:  # a file that collects what was measured
        with Path(os.environ["ROBUSTZS_REAL_RUNS"]).open("a", encoding="utf-8") as file:
            file.write(json.dumps(told) + "\n")
    gain = found["gain"]
    assert rest.low > 0.0, told  # one answer to everything is robust, too
    assert gain["robust_accuracy"] >= 0.04, told
    assert gain["interval"][0] > 0.0, told
    assert gain["clean_kept"] >= 0.7, told
