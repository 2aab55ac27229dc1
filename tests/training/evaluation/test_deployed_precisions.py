"""Every precision of a bundle on clean pictures and under the worst of three attacks."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from robustzs_training.evaluation.attacks import build_attack
from robustzs_training.evaluation.deployed import (
    DeployedSettings,
    Variant,
    card_rows,
    deployed_attack,
    deployed_clean,
    evaluate_deployed,
    to_grid,
    twin_of,
    variants_of,
)

from robustzs.bundle.manifest import Precision
from robustzs.bundle.store import Bundle
from robustzs.cards import schema
from robustzs.cards.reading import make_result
from robustzs.classifier import Classifier
from robustzs.errors import EvaluationError, UsageError
from robustzs.threat import ThreatModel
from tests.training.evaluation.deployed_worlds import (
    LABELS,
    PLAIN,
    deployed,
    parent_of,
    pictures,
    precisions,
)

THREAT = ThreatModel(eps=6.0 / 255.0)
QUICK = DeployedSettings(n_steps=8, n_queries=30, batch_size=5, threads=1)
INT8 = Variant(image="int8", text="fp32")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return precisions(tmp_path_factory.mktemp("precisions") / "tiny")


def test_clean_verdicts_of_every_pair_are_those_of_the_classifier(bundle: Bundle) -> None:
    images = pictures(12, nearness=0.55)
    found = deployed_clean(bundle, images, PLAIN, parent=parent_of(bundle), batch_size=5)
    assert next(iter(found)) == "fp32/fp32"
    assert set(found) == {f"{i}/{t}" for i in ("fp32", "fp16", "int8") for t in ("fp32", "int8")}
    assert found["fp32/fp32"].n_as_torch == 12
    precision: Precision
    for precision in ("fp32", "int8"):
        classifier = Classifier.load(
            bundle.path,
            labels=LABELS,
            hierarchy="flat",
            templates="{}",
            image_precision=precision,
            text_precision=precision,
        )
        with classifier:
            pixels = images.pixels(np.arange(12)).numpy()
            answers = classifier.classify_pixels(pixels, list(images.keys))
        names = [answer.flat_top1.name for answer in answers]
        assert [LABELS.names[top] for top in found[f"{precision}/{precision}"].top] == names


def test_the_twin_of_quantised_text_is_the_float32_tower_with_exactly_that_text(
    bundle: Bundle,
) -> None:
    probes = pictures(6).pixels(np.arange(6))
    parent = parent_of(bundle)
    found = deployed(bundle, "fp32", "int8")
    twin = twin_of(found, probes, parent)
    assert twin.kind == "torch"
    assert twin.n_same == twin.n == 6
    assert torch.allclose(twin.victim.logits_of(probes), found.logits(probes), atol=1e-4)
    # and that is not the model with float32 text
    assert not torch.allclose(parent.logits_of(probes), found.logits(probes), atol=0.1)


def test_what_is_attacked_compares_with_the_deployed_texts(bundle: Bundle) -> None:
    probes = pictures(6).pixels(np.arange(6))
    parent, found = parent_of(bundle), deployed(bundle, "fp32", "int8")
    seen, oracle = found.text_for(parent), found.victim()
    assert torch.allclose(seen.logits_of(probes), oracle.logits_of(probes), atol=1e-4)
    assert not torch.allclose(parent.logits_of(probes), seen.logits_of(probes), atol=0.1)
    texts = ["red", "blue"]
    assert torch.allclose(
        seen.logits_for(texts)(probes), oracle.logits_for(texts)(probes), atol=1e-4
    )
    assert seen.logits_among is not None
    assert oracle.logits_among is not None
    assert torch.allclose(
        seen.logits_among(texts)(probes), oracle.logits_among(texts)(probes), atol=1e-4
    )
    probes.requires_grad_()
    (slope,) = torch.autograd.grad(seen.logits_of(probes).amax(dim=1).sum(), probes)
    assert bool((slope.abs().amax(dim=(1, 2, 3)) > 0.0).all())


def test_the_worst_of_all_parts_counts_and_the_row_says_it(bundle: Bundle) -> None:
    images = pictures(10, nearness=0.45)
    rows = evaluate_deployed(
        bundle, images, parent_of(bundle), [THREAT], templates=PLAIN, variants=[INT8],
        settings=QUICK,
    )  # fmt: skip
    (row,) = rows
    assert row.twin is not None
    assert row.twin.kind == "graph"
    assert not row.transfer_only
    assert not row.reason
    assert 0 < row.robust.sum() < row.clean.sum()
    broken = row.clean & ~row.robust
    assert [bool(name) for name in row.by] == broken.tolist()
    attacks, (result,), (sentence,) = card_rows(rows, images.name)
    assert result.precision == "int8/fp32"
    assert (result.n_robust, result.transfer_only) == (int(row.robust.sum()), False)
    assert (attacks[0].eight_bit, attacks[0].knowledge) == (True, "white-box")
    assert "on the twin" in attacks[0].implementation
    assert "rounding straight-through" in sentence


def test_less_than_all_parts_is_labelled_transfer_only(tmp_path: Path) -> None:
    bundle = precisions(tmp_path / "tiny", "qoperator")
    images = pictures(4)
    few = dataclasses.replace(QUICK, n_queries=0)
    parent = parent_of(bundle)
    (row,) = evaluate_deployed(
        bundle, images, parent, [THREAT], templates=PLAIN, variants=[INT8], settings=few
    )
    assert row.twin is None
    assert row.transfer_only
    assert "QLinear" in row.reason
    assert "Square" in row.reason
    result = row.result(images.name)
    assert result.transfer_only
    assert result.attack == "deployed-transfer"
    assert row.entry().knowledge == "transfer"
    assert not row.entry().saw_defence
    with pytest.raises(EvaluationError, match="QLinear"):
        twin_of(deployed(bundle, "int8"), images.pixels(np.arange(2)), parent)


def test_neither_batch_nor_order_decides(bundle: Bundle) -> None:
    images = pictures(6, nearness=0.45)
    parent, found = parent_of(bundle), deployed(bundle, "int8")
    pixels = images.pixels(np.arange(6))
    right = torch.from_numpy(images.right)
    twin = twin_of(found, pixels, parent)
    attack = deployed_attack(THREAT, parent, twin, QUICK)
    whole = attack(found.victim(), pixels, right, range(6))
    order = [4, 1, 5]
    part = attack(found.victim(), pixels[order], right[order], order)
    assert torch.equal(whole.broken[order], part.broken)
    assert torch.equal(whole.adversarial[order], part.adversarial)
    # what is shown is what a PNG holds, and the deployed graph alone judges it
    again = to_grid(whole.adversarial, pixels, THREAT.eps)
    assert np.allclose(again / np.float32(255), whole.adversarial.numpy(), atol=1e-7)
    top = found.logits(whole.adversarial).argmax(dim=1)
    assert torch.equal(~right[torch.arange(6), top], whole.broken)


def test_square_needs_no_gradients(bundle: Bundle) -> None:
    images = pictures(4, nearness=0.48)
    victim = deployed(bundle, "int8").victim()
    attack = build_attack("square", THREAT, n_queries=20)
    pixels, right = images.pixels(np.arange(4)), torch.from_numpy(images.right)
    found = attack(victim, pixels, right, range(4))
    top = victim.logits_of(found.adversarial).argmax(dim=1)
    assert torch.equal(~right[torch.arange(4), top], found.broken)


def test_two_precisions_fit_into_one_card_but_not_one_twice() -> None:
    attack = schema.Attack(
        name="deployed-worst", eps="1/255", eps_value=1 / 255, implementation="x", saw_defence=True
    )
    clean = [np.asarray([True, True]), np.asarray([True, False])]
    results = [
        make_result(right, right, dataset="d", attack=attack, precision=name)
        for right, name in zip(clean, ("fp32/fp32", "int8/fp32"), strict=True)
    ]
    fields = {
        "model": schema.MeasuredModel(name="m", digest="0" * 64, engine="torch"),
        "robustness": "x",
        "datasets": (schema.Dataset(name="d", digest="0" * 64, n=2, n_labels=2),),
        "attacks": (attack,),
        "complete": True,
    }
    assert len(schema.Card(**fields, results=tuple(results)).results) == 2
    with pytest.raises(ValueError, match="twice"):
        schema.Card(**fields, results=(results[0], results[0]))
    with pytest.raises(ValueError, match="precision"):
        make_result(clean[0], clean[0], dataset="d", attack=attack, precision="int8")


def test_settings_and_questions_out_of_range_are_refused(bundle: Bundle) -> None:
    with pytest.raises(UsageError, match="0 steps"):
        DeployedSettings(n_steps=0)
    with pytest.raises(UsageError, match="0 radii"):
        evaluate_deployed(bundle, pictures(2), None, [], templates=PLAIN)
    with pytest.raises(UsageError, match="0 variants"):
        deployed_clean(bundle, pictures(2), PLAIN, variants=[])
    assert variants_of(bundle)[0].name == "fp32/fp32"


def test_the_twin_alone_breaks_what_the_deployed_graph_then_gets_wrong(bundle: Bundle) -> None:
    """Without weights nothing is replayed: the row says so, and still finds what breaks."""
    images = pictures(10, nearness=0.45)
    alone = dataclasses.replace(QUICK, n_queries=0)
    (row,) = evaluate_deployed(
        bundle, images, None, [THREAT], templates=PLAIN, variants=[INT8], settings=alone
    )
    assert set(row.by) == {"", "apgd-ce on twin"}
    assert row.transfer_only
    assert "nothing was replayed" in row.reason
