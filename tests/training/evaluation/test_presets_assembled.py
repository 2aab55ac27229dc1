"""What a preset asks for is what a run has: pictures, templates, resize, attacks, radii."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from robustzs_training.evaluation.assembly import assemble
from robustzs_training.evaluation.request import EvaluateRequest, parse_threats
from robustzs_training.evaluation.scenes import Scene

from robustzs.cards.averages import in_words
from tests.training.evaluation.evaluate_runs import evaluated
from tests.training.evaluation.published_shards import write_shards

CLASSES = ("airplane", "automobile/car", "bird")
N_THERE = 1001  # one more than `fare` and `qt-aft` draw
OF_SET = ("a blurry photo of a {}.", "a photo of the {}.")
OF_PAPER = ("This is a photo of a {}",)
AS_PUBLISHED, AS_TECOA = CLASSES, ("airplane", "automobile car", "bird")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("datasets")
    write_shards(root, "wds_vtab-cifar10", CLASSES, n=N_THERE, size=(8, 8))
    write_shards(root, "wds_vtab-dtd", CLASSES, n=4, size=(50, 40))
    return root


def _assembled(preset: str, bundle: Path, root: Path) -> Mapping[str, Scene]:
    request = EvaluateRequest(
        model=str(bundle),
        data=(),
        threats=parse_threats("7/255"),  # the command's own radius, for pictures without a preset
        n_steps=3,
        preset=preset,
        root=root,
        skip_missing=True,
        seed=9,
        device="cpu",
    )
    scenes = assemble(request, say=lambda line: None).scenes
    return {scene.images.name: scene for scene in scenes}


def _pgd(eps: str, n_steps: int) -> dict[str, Any]:
    return {
        "attack": "pgd",
        "eps": eps,
        "n_steps": n_steps,
        "step_size": "1/255",
        "n_restarts": 1,
        "momentum": 0.0,
        "logits": "as deployed",
    }


def _members(eps: str, *members: tuple[str, int]) -> dict[str, Any]:
    return {
        "attack": "autoattack",
        "eps": eps,
        "members": [
            {"attack": name, "eps": eps, "n_steps": 100, "n_restarts": n_restarts}
            for name, n_restarts in members
        ],
    }


FARE = (("apgd-ce", 5), ("apgd-t", 1))
QT_AFT = (("apgd-ce", 1), ("apgd-dlr", 1))


@pytest.mark.parametrize(
    ("preset", "attacks", "n", "seed", "sampling", "templates", "names", "resize"),
    [
        (
            *("fare", (_members("2/255", *FARE), _members("4/255", *FARE))),
            *(1000, 0, "robustvlm", OF_SET, AS_PUBLISHED, (None, "bicubic")),
        ),
        (
            *("qt-aft", (_members("4/255", *QT_AFT), _pgd("4/255", 10))),
            *(1000, 42, "torch-randperm", OF_PAPER, AS_PUBLISHED, (37, "bilinear")),
        ),
        (
            *("tecoa", (_pgd("1/255", 100), _members("1/255", *QT_AFT))),
            *(N_THERE, 0, "all", OF_PAPER, AS_TECOA, (37, "bilinear")),
        ),
    ],
)
def test_a_preset_reaches_the_run(
    preset: str,
    attacks: tuple[dict[str, Any], ...],
    n: int,
    seed: int,
    sampling: str,
    templates: tuple[str, ...],
    names: tuple[str, ...],
    resize: tuple[int | None, str],
    bundle: Path,
    root: Path,
) -> None:
    scenes = _assembled(preset, bundle, root)
    assert list(scenes) == ["cifar10", "dtd"]
    for scene in scenes.values():
        protocols = [trial.attack.protocol for trial in scene.trials]
        assert [_part(found, wanted) for found, wanted in zip(protocols, attacks, strict=True)] == [
            *attacks
        ]
        assert [found["seed"] for found in protocols] == [9] * len(attacks)  # of the run
        assert scene.templates.templates == templates
        assert scene.images.labels.prompts == names
    cifar, dtd = scenes["cifar10"], scenes["dtd"]
    drawn = cifar.images.description
    assert (drawn["seed"], drawn["sampling"]) == (seed, sampling)  # of the preset
    assert (len(cifar.images.keys), cifar.native) == (n, True)
    rule = dtd.images.description["preprocess"]
    assert (rule["resize_size"], rule["interpolation"]) == resize
    assert (len(dtd.images.keys), dtd.native) == (4, False)


def test_a_measured_preset_tells_the_average_of_what_was_there(bundle: Path, root: Path) -> None:
    request = EvaluateRequest(
        model=str(bundle),
        data=(),
        threats=parse_threats("7/255"),
        preset="qt-aft",
        root=root,
        skip_missing=True,
        n=4,
        device="cpu",
    )
    outcome, _ = evaluated(request)
    card = outcome.card
    assert card is not None
    assert card.complete, card.incomplete_reason
    assert card.preset == "qt-aft"
    rows = {(row.dataset, row.attack): row for row in card.results}
    assert {row.eps for row in rows.values()} == {"4/255"}
    assert [(each.attack, each.eps) for each in card.averages] == [
        ("autoattack", "4/255"),
        ("pgd", "4/255"),
        ("worst", "4/255"),
    ]
    for each in card.averages:
        assert in_words(each) == "2 of 18 sets (cifar10, dtd)"
        two = [rows[name, each.attack].clean_accuracy for name in each.datasets]
        assert each.clean_accuracy == sum(two) / 2
    assert "4 pictures of each set, fewer" in "\n".join(card.protocol)


def _part(found: Any, wanted: Any) -> Any:
    """What ``found`` has of everything that ``wanted`` names."""
    if isinstance(wanted, dict):
        return {key: _part(found[key], value) for key, value in wanted.items()}
    if isinstance(wanted, list):
        return [_part(*pair) for pair in zip(found, wanted, strict=True)]
    return found
