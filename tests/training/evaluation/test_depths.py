"""Evaluation at every depth against slow references: H's metrics on dense node probabilities."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from robustzs_training.evaluation.attacks import build_attack
from robustzs_training.evaluation.base import Attack
from robustzs_training.evaluation.depths import (
    DepthReport,
    Scorer,
    Scores,
    evaluate_depths,
    join_scores,
    leaf_columns,
)
from robustzs_training.evaluation.hierarchical.report import (
    question_metrics,
    robust_outcomes,
    split_name,
    tree_metrics,
)
from robustzs_training.evaluation.hierarchical.targets import depth_targets

from robustzs.cards.reading import parse_card
from robustzs.cards.schema import Attack as CardAttack
from robustzs.cards.schema import Card, Dataset, MeasuredModel
from robustzs.errors import EvaluationError, UsageError
from robustzs.hierarchy import inference
from robustzs.hierarchy.tree import Hierarchy
from robustzs.metrics.consistency import is_consistent
from robustzs.metrics.curves import calibration_errors_at_depths
from robustzs.metrics.margins import margins_at_depths
from robustzs.metrics.severity import hierarchical_distance, lca_height, mistake_severity
from robustzs.metrics.summary import summarise
from robustzs.metrics.truth import truth_nodes
from robustzs.metrics.verdicts import right_at_depths
from robustzs.threat import ThreatModel
from tests.hierarchy.trees import animals, trees
from tests.training.evaluation.depth_worlds import (
    Pictures,
    linear_victim,
    make_pictures,
    shuffled,
    weights_of,
)

N = 35
TEMPERATURE = 1.7
THREAT = ThreatModel(eps=3.0 / 255.0)
ATTACK_ENTRY = CardAttack(
    name="apgd-ce", eps="3/255", eps_value=3 / 255, n_steps=10, implementation="x", saw_defence=True
)


def _attack(n_steps: int = 10) -> Attack:
    return build_attack("apgd-ce", THREAT, n_steps=n_steps)


@pytest.fixture(scope="module")
def world() -> tuple[Hierarchy, Pictures, Scorer, DepthReport]:
    tree = animals()
    labels = shuffled(tree)
    pictures = make_pictures(tree, labels, N, inner=["dog", "animal"])
    scorer = Scorer(tree, labels, "all", temperature=TEMPERATURE)
    report = evaluate_depths(linear_victim(labels), pictures, scorer, _attack(), batch_size=16)
    return tree, pictures, scorer, report


def _dense(tree: Hierarchy, pictures: Pictures, pixels: torch.Tensor) -> np.ndarray:
    logits = linear_victim(pictures.labels).logits_of(pixels).numpy()
    scaled = (logits.astype(np.float64) / TEMPERATURE).astype(np.float32)
    return inference.marginal(scaled[:, leaf_columns(tree, pictures.labels)], tree)


@settings(max_examples=25)
@given(trees(max_nodes=14), st.integers(0, 9), st.sampled_from(["greedy", "climb"]))
def test_scores_are_robustzs_own_metrics(tree: Hierarchy, seed: int, rule: str) -> None:
    if tree.n_leaves < 2:
        return
    labels = shuffled(tree, seed)
    inner = [tree.ids[v] for v in range(1, len(tree)) if not tree.is_leaf(v)]
    pictures = make_pictures(tree, labels, 24, seed=seed, inner=inner)
    depths = [
        d for d in range(1, int(tree.depth.max())) if len(np.unique(tree.ancestor_at_depth(d))) > 1
    ]
    scorer = Scorer(tree, labels, depths, temperature=TEMPERATURE, rule=rule)  # type: ignore[arg-type]
    victim = linear_victim(labels)
    scores = scorer(victim, pictures.images, torch.from_numpy(pictures.right))
    truth = truth_nodes(pictures.truth, tree)
    # a chain of single children holds the same leaves: the lowest node of it is taken
    assert np.array_equal(tree.n_leaf_descendants[scores.truth], tree.n_leaf_descendants[truth])
    truth = scores.truth
    probs = _dense(tree, pictures, pictures.images)
    right = right_at_depths(probs, truth, tree)
    margins = margins_at_depths(probs, truth, tree)
    errors = calibration_errors_at_depths(probs, truth, tree)
    for name in scorer.names:
        depth, meaning = split_name(name)
        if meaning == "prompt":
            continue
        place = int(tree.depth.max()) if depth is None else depth
        column = scores.place(name)
        np.testing.assert_array_equal(scores.right[:, column], right[:, place])
        lower = tree.depth[truth] >= place  # several right nodes: their mass is one here
        np.testing.assert_allclose(
            scores.margin[lower, column], margins[lower, place], rtol=1e-3, atol=1e-4
        )
        assert question_metrics(scores, name)["ece"] == pytest.approx(errors[place], abs=1e-5)
    found = tree_metrics(scores, tree, theta=0.6, rule=rule)  # type: ignore[arg-type]
    expected = summarise(probs, truth, tree, theta=0.6, rule=rule)  # type: ignore[arg-type]
    assert found["hierarchical_accuracy"] == pytest.approx(expected.hierarchical_accuracy, abs=1e-6)
    assert found["specificity"] == pytest.approx(expected.specificity, abs=1e-6)
    assert found["hf"] == pytest.approx(expected.scores.f1, abs=1e-6)
    assert found["hd1"] == pytest.approx(expected.hd1, abs=1e-6)
    assert found["mistake_severity"] == (
        None
        if expected.mistake_severity is None
        else pytest.approx(expected.mistake_severity, abs=1e-6)
    )
    assert found["haurc"] == pytest.approx(expected.haurc, abs=1e-5)


def test_prompt_verdicts_are_the_best_text_of_the_cut(
    world: tuple[Hierarchy, Pictures, Scorer, DepthReport],
) -> None:
    tree, pictures, scorer, report = world
    flat = (pictures.images - 0.5).flatten(1)
    node_logits = (flat @ weights_of(tree.prompts).T).numpy()
    truth = truth_nodes(pictures.truth, tree)
    for question in (each for each in scorer.questions if each.meaning == "prompt"):
        nodes = question.cut.nodes
        best = nodes[node_logits[:, nodes].argmax(axis=1)]
        by_hand = [tree.is_ancestor_or_self(b, t) or tree.is_ancestor_or_self(t, b)
                   for b, t in zip(best.tolist(), truth.tolist(), strict=True)]  # fmt: skip
        np.testing.assert_array_equal(
            report.clean.right[:, report.clean.place(question.name)], by_hand
        )
    expected = is_consistent(node_logits, report.clean.top, truth, tree)
    np.testing.assert_array_equal(report.clean.consistent, expected)
    assert 0.0 < expected.mean() < 1.0


def test_every_cell_of_the_table_is_recounted_from_the_images(
    world: tuple[Hierarchy, Pictures, Scorer, DepthReport],
) -> None:
    """One image at a time, with the attack of that question alone."""
    _, pictures, scorer, report = world
    victim = linear_victim(pictures.labels)
    right = torch.from_numpy(pictures.right)
    for attack in scorer.attacks(_attack())[:4:3]:  # the leaves, and a depth by its prompts
        attacked = scorer.name_of(attack)
        counts = dict.fromkeys(scorer.names, 0)
        for row in range(len(pictures.images)):
            image, own = pictures.images[row : row + 1], right[row : row + 1]
            clean = scorer(victim, image, own)
            shown = image
            if clean.right[0, clean.place(attacked)]:
                shown = attack(victim, image, own, [row]).adversarial
            under = scorer(victim, shown, own)
            for column, name in enumerate(scorer.names):
                counts[name] += int(clean.right[0, column] and under.right[0, column])
        table = report.table()[attacked]
        assert {name: round(value * N) for name, value in table.items()} == counts
    own_loss = {name: report.table()[name][name] for name in scorer.names}
    clean = report.table()["none"]
    assert all(own_loss[name] < clean[name] for name in scorer.names)
    # what the whole exercise is about: a leaf attack flatters coarse accuracy
    assert own_loss["rollup:1"] < report.table()["flat"]["rollup:1"]
    # and an attack on a depth reaches the leaves
    assert report.table()["rollup:1"]["flat"] < clean["flat"]


def test_metrics_under_attack_are_of_the_attacked_images(
    world: tuple[Hierarchy, Pictures, Scorer, DepthReport],
) -> None:
    tree, pictures, _, report = world
    victim, right = linear_victim(pictures.labels), torch.from_numpy(pictures.right)
    standing = report.clean.right[:, 0]
    rows = np.flatnonzero(standing)
    shown = pictures.images.clone()
    shown[rows] = _attack()(victim, shown[rows], right[rows], rows.tolist()).adversarial
    probs, truth = _dense(tree, pictures, shown), truth_nodes(pictures.truth, tree)
    top = tree.leaf_nodes[probs[:, tree.leaf_nodes].argmax(axis=1)]
    found = tree_metrics(report.attacked["flat"].scores, tree, theta=0.6, before=report.clean)
    assert found["hd1"] == pytest.approx(hierarchical_distance(top, truth, tree), abs=1e-6)
    assert found["mistake_severity"] == pytest.approx(mistake_severity(top, truth, tree), abs=1e-6)
    moved = lca_height(top, report.clean.top, tree).mean()
    assert found["height_from_clean"] == pytest.approx(moved, abs=1e-6)
    clean = tree_metrics(report.clean, tree, theta=0.6)
    assert found["hd1"] > clean["hd1"]  # type: ignore[operator]
    assert "height_from_clean" not in clean
    assert report.attacked["flat"].n_attacked == int(standing.sum())


def test_batches_change_nothing(world: tuple[Hierarchy, Pictures, Scorer, DepthReport]) -> None:
    _, pictures, scorer, report = world
    victim = linear_victim(pictures.labels)
    other = evaluate_depths(
        victim, pictures, scorer, _attack(), attacked=["rollup:2"], batch_size=7
    )
    assert list(other.attacked) == ["rollup:2"]
    for name in scorer.names:
        np.testing.assert_array_equal(
            other.outcomes("rollup:2", name), report.outcomes("rollup:2", name)
        )


def test_rows_make_a_card(world: tuple[Hierarchy, Pictures, Scorer, DepthReport]) -> None:
    tree, _, scorer, report = world
    rows = report.results("noise", ATTACK_ENTRY, theta=0.6)
    assert len(rows) == len(scorer.names) ** 2
    card = Card(
        model=MeasuredModel(name="m", digest="1" * 64, engine="torch"),
        robustness="x",
        datasets=(Dataset(name="noise", digest="2" * 64, n=N, n_labels=5, hierarchy=tree.digest),),
        attacks=(ATTACK_ENTRY,),
        results=tuple(rows),
        complete=True,
    )
    assert parse_card(json.loads(card.to_json())) == card
    by = {(r.attacked_meaning, r.attacked_depth, r.meaning, r.depth): r for r in rows}
    own = by["rollup", 1, "rollup", 1]
    assert own.robust_accuracy == report.table()["rollup:1"]["rollup:1"]
    assert by["flat", None, "flat", None].clean_metrics["hca"] == pytest.approx(
        report.clean.consistent.mean(),
        abs=1e-6,  # type: ignore[union-attr]
    )
    deep = (tree.depth[report.clean.truth] >= 2).sum()
    assert by["flat", None, "prompt", 2].metrics["n_reaching"] == float(deep)
    assert (
        by["flat", None, "rollup", 2].metrics["margin_mean"]
        < by[  # type: ignore[operator]
            "flat", None, "rollup", 2
        ].clean_metrics["margin_mean"]
    )


def test_an_attack_that_did_not_search_is_found_out(
    world: tuple[Hierarchy, Pictures, Scorer, DepthReport],
) -> None:
    _, _, scorer, report = world
    found = report.checks()
    assert found.passed
    n = len(scorer.names)
    assert len({result.name for result in found.results}) == n * (n - 1)
    lazy = report.attacked["rollup:1"]
    lazy = dataclasses.replace(
        lazy,
        scores=report.clean,
        robust=report.clean.right[:, report.clean.place("rollup:1")],
    )
    tampered = dataclasses.replace(report, attacked={**report.attacked, "rollup:1": lazy})
    failed = [result.name for result in tampered.checks().results if not result.passed]
    assert "own-loss-not-weaker:rollup:1:rollup:2" in failed
    assert all(name.startswith("own-loss-not-weaker:rollup:1:") for name in failed)


def test_the_document_has_every_pair(
    world: tuple[Hierarchy, Pictures, Scorer, DepthReport],
) -> None:
    _, _, scorer, report = world
    document = json.loads(json.dumps(report.document()))
    pairs = {(row["attacked"], row["asked"]) for row in document["accuracies"]}
    assert pairs == {(a, b) for a in ("none", *scorer.names) for b in scorer.names}
    for row in document["accuracies"]:
        low, high = row["interval"]
        assert low <= row["accuracy"] <= high
    assert document["attacks"]["prompt:1"]["attacked_meaning"] == "prompt"


def test_scores_survive_a_journal(world: tuple[Hierarchy, Pictures, Scorer, DepthReport]) -> None:
    _, _, scorer, report = world
    scores = report.attacked["rollup:1"].scores
    notes = json.loads(json.dumps(scores.to_notes()))
    assert all(len(column) == N for column in notes.values())
    notes["top_label"] = [3] * N
    _same(Scores.from_notes(notes, scorer.names), scores)
    del notes["sure.2"]
    with pytest.raises(UsageError, match="lack columns of 'sure'"):
        Scores.from_notes(notes, scorer.names)
    parts = [scores.take(np.arange(20)), scores.take(np.arange(N) >= 20)]
    _same(join_scores(parts), scores)
    with pytest.raises(UsageError, match="cannot be joined"):
        join_scores([])


def _same(one: Scores, other: Scores) -> None:
    assert one.names == other.names
    for name in ("right", "sure", "margin", "truth", "top", "end", "path", "consistent"):
        first, second = getattr(one, name), getattr(other, name)
        assert first.dtype == second.dtype
        np.testing.assert_array_equal(first, second)


def test_without_prompts_there_is_no_consistency() -> None:
    tree = animals()
    pictures = make_pictures(tree, tree.labels, 5)
    scorer = Scorer(tree, tree.labels, "1", meanings=["rollup"])
    scores = scorer(linear_victim(tree.labels), pictures.images, torch.from_numpy(pictures.right))
    assert scorer.names == ("flat", "rollup:1")
    assert scores.consistent is None
    assert "hca" not in tree_metrics(scores, tree, theta=0.5)
    _same_without(Scores.from_notes(scores.to_notes(), scores.names), scores)


def _same_without(one: Scores, other: Scores) -> None:
    assert one.consistent is None
    np.testing.assert_array_equal(one.path, other.path)


def test_right_labels_that_are_no_node_are_counted_apart() -> None:
    tree = animals()
    pictures = make_pictures(tree, tree.labels, 10)
    place = {label.id: column for column, label in enumerate(tree.labels)}
    pictures.right[0] = False
    pictures.right[0, [place["husky"], place["car"]]] = True
    scorer = Scorer(tree, tree.labels, "1", meanings=["rollup"])
    scores = scorer(linear_victim(tree.labels), pictures.images, torch.from_numpy(pictures.right))
    assert scores.truth[0] == -1
    assert (scores.truth[1:] >= 0).all()
    assert tree_metrics(scores, tree, theta=0.5)["n_without_node"] == 1.0
    only = tree_metrics(scores.take([0]), tree, theta=0.5)
    assert only == {"n_without_node": 1.0}


def test_what_the_attack_says_of_its_own_question_counts() -> None:
    tree = animals()
    pictures = make_pictures(tree, tree.labels, 10)
    scorer = Scorer(tree, tree.labels, "1", meanings=["rollup"])
    scores = scorer(linear_victim(tree.labels), pictures.images, torch.from_numpy(pictures.right))
    broken = np.zeros(10, np.bool_)
    found = robust_outcomes(scores, scores, attacked="rollup:1", robust=broken)
    assert not found["rollup:1"].any()
    np.testing.assert_array_equal(found["flat"], scores.right[:, 0])


def test_a_questions_victim_gives_the_scored_verdict() -> None:
    tree = animals()
    labels = shuffled(tree)
    pictures = make_pictures(tree, labels, 12, inner=["dog"])
    victim = linear_victim(labels)
    scorer = Scorer(tree, labels, "all", temperature=TEMPERATURE)
    right = torch.from_numpy(pictures.right)
    scores = scorer(victim, pictures.images, right)
    for question in scorer.questions:
        top = question.victim(victim).logits_of(pictures.images).argmax(dim=1)
        verdict = question.right(right)[torch.arange(12), top].numpy()
        np.testing.assert_array_equal(verdict, scores.right[:, scores.place(question.name)])
    targets = depth_targets(scorer, victim, pictures.right)
    assert [(t.depth, t.meaning) for t in targets] == [split_name(n) for n in scorer.names]
    for column, target in enumerate(targets):
        top = target.victim.logits_of(pictures.images).argmax(dim=1)
        np.testing.assert_array_equal(
            target.right[np.arange(12), top.numpy()], scores.right[:, column]
        )


def test_nothing_to_measure_is_an_error() -> None:
    tree = animals()
    some = make_pictures(tree, tree.labels, 2)
    none = dataclasses.replace(some, images=some.images[:0])
    scorer = Scorer(tree, tree.labels, "1")
    victim = linear_victim(tree.labels)
    with pytest.raises(EvaluationError, match="no pictures"):
        evaluate_depths(victim, none, scorer, _attack())
    with pytest.raises(UsageError, match="no question rollup:9"):
        evaluate_depths(victim, some, scorer, _attack(), attacked=["rollup:9"])
    report = evaluate_depths(victim, some, scorer, _attack(2), attacked=["flat"])
    with pytest.raises(UsageError, match="was not attacked"):
        report.outcomes("rollup:1", "flat")
    with pytest.raises(UsageError, match="was not asked"):
        report.clean.place("prompt:9")
