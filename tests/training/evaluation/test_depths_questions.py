"""Questions at a depth: node log-masses, right nodes, the victims and attacks made of them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from robustzs_training.evaluation.attacks import build_attack
from robustzs_training.evaluation.depths import (
    Cut,
    Question,
    choose_depths,
    depth_attack,
    leaf_columns,
    prompt_victim,
    rollup_victim,
    stands,
)

from robustzs.errors import LabelMismatchError, UsageError
from robustzs.hierarchy import inference
from robustzs.hierarchy.tree import Hierarchy
from robustzs.labels import LabelSet
from robustzs.metrics.verdicts import cut_at, is_right
from robustzs.threat import ThreatModel
from tests.hierarchy.trees import animals, generators, trees
from tests.training.evaluation.depth_worlds import (
    linear_victim,
    make_pictures,
    shuffled,
    weights_of,
)

THREAT = ThreatModel(eps=2.0 / 255.0)


def _branching(tree: Hierarchy) -> list[int]:
    return [d for d in range(int(tree.depth.max()) + 1) if len(cut_at(tree, d)) > 1]


@settings(max_examples=40)
@given(trees(), generators(), st.sampled_from([0.3, 1.0, 7.0]), st.sampled_from([1.0, 30.0]))
def test_log_masses_are_robustzs_own_node_probs(
    tree: Hierarchy, rng: np.random.Generator, temperature: float, scale: float
) -> None:
    labels = shuffled(tree, 3)
    columns = leaf_columns(tree, labels)
    logits = (scale * rng.standard_normal((5, tree.n_leaves))).astype(np.float32)
    deployed = (logits.astype(np.float64) / temperature).astype(np.float32)
    expected = inference.marginal(deployed[:, columns], tree)
    for depth in _branching(tree):
        cut = Cut(tree, columns, depth)
        found = cut.log_masses(torch.from_numpy(logits), temperature)
        np.testing.assert_allclose(
            found.exp().numpy(), expected[:, cut.nodes], rtol=2e-4, atol=1e-6
        )
        slow = [
            torch.logsumexp(
                (torch.from_numpy(logits).double() / temperature).log_softmax(1)[
                    :, columns[tree.leaf_start[v] : tree.leaf_end[v]]
                ],
                dim=1,
            )
            for v in cut.nodes
        ]
        np.testing.assert_allclose(
            found.numpy(), torch.stack(slow, 1).numpy(), rtol=1e-5, atol=1e-4
        )


def test_small_masses_keep_value_and_gradient() -> None:
    """Where probabilities of float32 are long 0."""
    tree = animals()
    logits = torch.tensor([[0.0, -500.0, -501.0, 300.0, -200.0]], requires_grad=True)
    cut = Cut(tree, np.arange(5), 1)
    masses = cut.log_masses(logits)
    assert bool(masses.isfinite().all())
    masses.min().backward()
    assert logits.grad is not None
    assert bool(logits.grad.isfinite().all())
    assert float(logits.grad.abs().max()) > 0.9


@settings(max_examples=25)
@given(trees(max_nodes=12), generators(), st.booleans())
def test_the_gradient_of_a_mass_is_that_of_its_formula(
    tree: Hierarchy, rng: np.random.Generator, ties: bool
) -> None:
    """d log p(v) / d z_j = [j in v] p_j / p(v) - p_j."""
    draw = rng.integers(-2, 3, tree.n_leaves) if ties else rng.standard_normal(tree.n_leaves)
    for depth in _branching(tree):
        logits = torch.tensor(draw[None], dtype=torch.float64, requires_grad=True)
        cut = Cut(tree, np.arange(tree.n_leaves), depth)
        masses = cut.log_masses(logits)
        probs = logits.detach().softmax(dim=1)[0].numpy()
        for place, node in enumerate(cut.nodes):
            (found,) = torch.autograd.grad(masses[0, place], logits, retain_graph=True)
            inside = np.zeros(tree.n_leaves)
            inside[tree.leaf_start[node] : tree.leaf_end[node]] = 1.0
            expected = inside * probs / (inside * probs).sum() - probs
            np.testing.assert_allclose(found[0].numpy(), expected, atol=1e-12)


@given(trees(), st.data())
def test_right_nodes_are_those_on_one_path_with_the_truth(
    tree: Hierarchy, data: st.DataObject
) -> None:
    truth = data.draw(st.integers(0, len(tree) - 1))
    labels = shuffled(tree, 5)
    columns = leaf_columns(tree, labels)
    right = np.zeros((1, tree.n_leaves), np.bool_)
    right[0, columns[tree.leaf_start[truth] : tree.leaf_end[truth]]] = True
    for depth in _branching(tree):
        cut = Cut(tree, columns, depth)
        found = cut.right(torch.from_numpy(right)).numpy()[0]
        np.testing.assert_array_equal(found, is_right(cut.nodes, np.int64(truth), tree))


def test_a_leaf_above_the_depth_stays_itself() -> None:
    tree = animals()
    cut = Cut(tree, np.arange(5), 3)
    names = [tree.names[node] for node in cut.nodes]
    assert sorted(names) == ["bus", "car", "cat", "husky", "poodle"]
    cut = Cut(tree, np.arange(5), 1)
    assert cut.prompts == [tree.prompts[node] for node in cut.nodes]
    assert sorted(tree.names[node] for node in cut.nodes) == ["animal", "vehicle"]


def test_labels_of_any_order_and_right_sets_that_are_no_node() -> None:
    tree = animals()
    labels = shuffled(tree, 1)
    assert [label.id for label in labels] != list(tree.leaf_ids)
    cut = Cut(tree, leaf_columns(tree, labels), 2)
    place = {label.id: column for column, label in enumerate(labels)}
    right = torch.zeros(1, 5, dtype=torch.bool)
    right[0, [place["husky"], place["car"]]] = True
    found = {tree.names[node] for node in cut.nodes[cut.right(right).numpy()[0]]}
    assert found == {"dog", "car"}


def test_a_tree_over_other_labels_is_refused() -> None:
    tree = animals()
    with pytest.raises(LabelMismatchError, match=r"1 leaves .* are no labels.*such as bus"):
        leaf_columns(tree, LabelSet(tuple(x for x in tree.labels if x.id != "bus")))


@pytest.mark.parametrize(
    ("spec", "depths"), [(None, (1, 2)), ("all", (1, 2)), ("2", (2,)), ([2, 1, 2], (1, 2))]
)
def test_depths_that_can_be_chosen(spec: object, depths: tuple[int, ...]) -> None:
    assert choose_depths(animals(), spec) == depths  # type: ignore[arg-type]


@pytest.mark.parametrize("spec", ["0", "3", "two", "1,", [-1], "1.5"])
def test_depths_that_cannot(spec: object) -> None:
    with pytest.raises(UsageError):
        choose_depths(animals(), spec)  # type: ignore[arg-type]


def test_the_rollup_victim_is_deployed_probability_and_the_prompt_victim_the_nodes_texts() -> None:
    tree = animals()
    labels = shuffled(tree)
    victim = linear_victim(labels, scale=3.0)
    pixels = make_pictures(tree, labels, 6).images
    cut = Cut(tree, leaf_columns(tree, labels), 1)
    rolled = rollup_victim(victim, cut, temperature=2.0).logits_of(pixels)
    leaves = victim.logits_of(pixels).numpy()[:, leaf_columns(tree, labels)] / 2.0
    np.testing.assert_allclose(
        rolled.exp().numpy(), inference.marginal(leaves, tree)[:, cut.nodes], rtol=1e-4
    )
    prompted = prompt_victim(victim, cut).logits_of(pixels)
    weight = weights_of(["vehicle", "animal"], scale=3.0)
    by_hand = (pixels - 0.5).flatten(1) @ weight.T
    order = [["vehicle", "animal"].index(prompt) for prompt in cut.prompts]
    np.testing.assert_allclose(prompted.numpy(), by_hand[:, order].numpy(), rtol=1e-6)


def test_a_victim_without_a_text_tower_cannot_be_asked_by_prompt() -> None:
    tree = animals()
    victim = dataclasses.replace(linear_victim(tree.labels), logits_among=None)
    question = Question(tree, tree.labels, 1, "prompt")
    with pytest.raises(UsageError, match="prompts of inner nodes"):
        question.victim(victim)
    assert Question(tree, tree.labels, 1, "rollup").victim(victim).logits_among is None


def test_a_question_keeps_the_victim_of_one_model() -> None:
    tree = animals()
    question = Question(tree, tree.labels, 1, "prompt")
    one, other = linear_victim(tree.labels), linear_victim(tree.labels, scale=2.0)
    assert question.victim(one) is question.victim(one)
    assert question.victim(other) is not question.victim(one)


@pytest.mark.parametrize("meaning", ["rollup", "prompt"])
def test_an_attack_on_a_depth_lowers_exactly_the_true_ancestor(meaning: str) -> None:
    tree = animals()
    labels = shuffled(tree)
    victim = linear_victim(labels)
    pictures = make_pictures(tree, labels)
    right = torch.from_numpy(pictures.right)
    attack = depth_attack(
        build_attack("apgd-ce", THREAT, n_steps=10),
        tree,
        labels,
        1,
        meaning,  # type: ignore[arg-type]
    )
    standing = stands(attack, victim, pictures.images, right)
    rows = standing.nonzero().flatten()
    assert 10 < len(rows) < 40
    found = attack(victim, pictures.images[rows], right[rows], rows.tolist())
    asked, nodes = attack.question.victim(victim), attack.question.right(right[rows])

    def own(pixels: torch.Tensor) -> torch.Tensor:
        return asked.logits_of(pixels).log_softmax(dim=1).masked_fill(~nodes, -torch.inf).amax(1)

    assert bool((own(found.adversarial) < own(pictures.images[rows])).all())
    # verdicts are about the node, not about the leaf
    top = asked.logits_of(found.adversarial).argmax(dim=1)
    assert torch.equal(found.broken, ~nodes.gather(1, top[:, None]).squeeze(1))
    assert 0 < int(found.broken.sum()) < len(rows)


def test_two_nodes_break_exactly_where_a_linear_margin_ends() -> None:
    """At depth 1 by prompts the model is linear with two classes: robustness is known."""
    tree = animals()
    victim = linear_victim(tree.labels)
    pictures = make_pictures(tree, tree.labels, 60)
    right = torch.from_numpy(pictures.right)
    attack = depth_attack(
        build_attack("apgd-ce", THREAT, n_steps=10), tree, tree.labels, 1, "prompt"
    )
    nodes = attack.question.right(right)
    prompts = attack.question.cut.prompts
    weight = weights_of(prompts).double()
    flat = pictures.images.double().flatten(1) - 0.5
    sign = torch.where(nodes[:, 0], 1.0, -1.0).double()
    margin = sign * (flat @ (weight[0] - weight[1]))
    reach = THREAT.eps * float((weight[0] - weight[1]).abs().sum())
    standing = stands(attack, victim, pictures.images, right)
    assert torch.equal(standing, margin > 0)
    rows = standing.nonzero().flatten()
    found = attack(victim, pictures.images[rows], right[rows], rows.tolist())
    clear = (margin[rows] - reach).abs() > 1e-3 * reach
    assert torch.equal(~found.broken[clear], (margin[rows] > reach)[clear])
    assert 0 < int(found.broken.sum()) < len(rows)


def test_an_attack_on_a_depth_says_so() -> None:
    tree = animals()
    base = build_attack("apgd-ce", THREAT, n_steps=3, seed=5)
    attack = depth_attack(base, tree, tree.labels, 2, "rollup", temperature=0.5)
    assert attack.name == "apgd-ce@rollup:2"
    assert {**base.protocol} == {k: attack.protocol[k] for k in base.protocol}
    assert attack.protocol["attacked_depth"] == 2
    assert attack.protocol["attacked_meaning"] == "rollup"
    assert attack.protocol["temperature"] == 0.5
    assert attack.protocol["hierarchy"] == tree.digest
    assert attack.protocol["n_nodes"] == 4


def test_what_cannot_be_attacked_is_refused() -> None:
    tree = animals()
    prompts = build_attack("prompts", THREAT, prompts=["x"] * 5)
    with pytest.raises(UsageError, match="one text for each label"):
        depth_attack(prompts, tree, tree.labels, 1, "rollup")
    with pytest.raises(UsageError, match="single node at depth 0"):
        Question(tree, tree.labels, 0, "rollup")
    with pytest.raises(UsageError, match="unknown meaning 'flat'"):
        Question(tree, tree.labels, 1, "flat")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="temperature"):
        Question(tree, tree.labels, 1, "rollup", temperature=0.0)
