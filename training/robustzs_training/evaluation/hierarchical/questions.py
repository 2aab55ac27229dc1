"""What can be asked of a model at a depth, and its attack.

``rollup`` asks for the node with the most probability, summed up from the leaves: the verdict that
is deployed. ``prompt`` asks for the node whose own text fits best, as the second paper trains its
levels. A leaf above the depth stays itself in both.

An attack on a question is any attack on another victim, whose logits are those of the nodes. It
lowers the mass of the true ancestor and nothing else, where an attack on the leaves is content with
the sibling of a leaf and says little about coarser answers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import torch

from robustzs.errors import UsageError
from robustzs.hierarchy.tree import Hierarchy
from robustzs.labels import LabelSet
from robustzs_training.evaluation.attacks.view import finite_logits, judge
from robustzs_training.evaluation.base import Attack, Proposal, TensorFunction, Victim
from robustzs_training.evaluation.hierarchical.cuts import Cut, leaf_columns

DepthMeaning = Literal["rollup", "prompt"]
_LABEL_ATTACKS = ("prompts",)


def rollup_victim(victim: Victim, cut: Cut, *, temperature: float = 1.0) -> Victim:
    """A victim whose logits are log-masses of the nodes of a cut.

    Args:
        victim: The model.
        cut: The nodes.
        temperature: As deployed: unlike flat top-1, sums depend on it.
    """

    def logits_of(pixels: torch.Tensor) -> torch.Tensor:
        return cut.log_masses(victim.logits_of(pixels).float(), temperature)

    return dataclasses.replace(victim, logits_of=logits_of)


def prompt_victim(victim: Victim, cut: Cut) -> Victim:
    """A victim whose logits are those of the nodes' own prompts, through the deployed templates.

    Raises:
        UsageError: The victim cannot compare with other prompts.
    """
    return dataclasses.replace(victim, logits_of=prompted(victim, cut.prompts))


def prompted(victim: Victim, prompts: Sequence[str]) -> TensorFunction:
    """``pixels`` to logits of prompts in the deployed templates.

    Raises:
        UsageError: The victim cannot compare with other prompts.
    """
    if victim.logits_among is None:
        raise UsageError(
            "this model cannot be asked for the prompts of inner nodes",
            hint="ask for rollup alone, or make it by victim_of",
        )
    return victim.logits_among(prompts)


class Question:
    """Which node of a depth is it?

    Attributes:
        cut: The nodes to choose from.
        meaning: How the answer comes about.
        temperature: Of the leaves' softmax, for ``rollup``.

    Args:
        tree: The tree.
        labels: What the victim's logits stand for.
        depth: Edges from the root.
        meaning: See above.
        temperature: See above.

    Raises:
        LabelMismatchError: The tree's leaves are not the labels.
        UsageError: An unknown meaning, or a depth with a single node.
    """

    def __init__(
        self,
        tree: Hierarchy,
        labels: LabelSet,
        depth: int,
        meaning: DepthMeaning,
        *,
        temperature: float = 1.0,
    ) -> None:
        if meaning not in get_args(DepthMeaning):
            raise UsageError(f"unknown meaning {meaning!r}", hint="rollup or prompt")
        if not 0.0 < temperature < float("inf"):
            raise UsageError(f"the temperature is {temperature!r}", hint="above 0, usually 1")
        self.cut = Cut(tree, leaf_columns(tree, labels), depth)
        self.meaning: DepthMeaning = meaning
        self.temperature = temperature
        self._last: tuple[Victim, Victim] | None = None

    @property
    def depth(self) -> int:
        """Edges from the root."""
        return self.cut.depth

    @property
    def name(self) -> str:
        """``rollup:5``."""
        return f"{self.meaning}:{self.depth}"

    def victim(self, victim: Victim) -> Victim:
        """The victim that is asked this; that of the last model is kept, with its texts."""
        if self._last is None or self._last[0] is not victim:
            made = (
                rollup_victim(victim, self.cut, temperature=self.temperature)
                if self.meaning == "rollup"
                else prompt_victim(victim, self.cut)
            )
            self._last = (victim, made)
        return self._last[1]

    def right(self, right: torch.Tensor) -> torch.Tensor:
        """Right labels bool ``[B, C]`` to right nodes bool ``[B, n_nodes_of_cut]``."""
        return self.cut.right(right)


@dataclasses.dataclass(frozen=True)
class DepthAttack:
    """An attack on a question, which treats like any other attack.

    Give it the victim and the right *labels*; ``Proposal.broken`` is about the question. Which
    images it is worth attacking is told by :func:`stands`.

    Attributes:
        attack: What attacks.
        question: What it attacks.
    """

    attack: Attack
    question: Question

    @property
    def name(self) -> str:
        """``apgd-ce@rollup:5``."""
        return f"{self.attack.name}@{self.question.name}"

    @property
    def protocol(self) -> Mapping[str, Any]:
        """The attack's, and what it attacks."""
        question = self.question
        more: dict[str, Any] = {
            "attacked_depth": question.depth,
            "attacked_meaning": question.meaning,
            "n_nodes": len(question.cut.nodes),
            "hierarchy": question.cut.tree.digest,
        }
        if question.meaning == "rollup":
            more["temperature"] = question.temperature
        return {**self.attack.protocol, **more}

    def __call__(
        self, victim: Victim, pixels: torch.Tensor, right: torch.Tensor, rows: Sequence[int]
    ) -> Proposal:
        """Attack a batch; ``right`` are labels, bool ``[B, C]``."""
        asked = self.question.right(right.to(victim.device))
        return self.attack(self.question.victim(victim), pixels, asked, rows)


def depth_attack(
    attack: Attack,
    tree: Hierarchy,
    labels: LabelSet,
    depth: int,
    meaning: DepthMeaning,
    *,
    temperature: float = 1.0,
) -> DepthAttack:
    """An attack on the loss of a depth.

    Args:
        attack: On the labels; anything of ``build_attack`` but ``prompts``.
        tree: Whose depths are meant.
        labels: What the victim's logits stand for.
        depth: Edges from the root.
        meaning: Which verdict is attacked.
        temperature: As deployed.

    Raises:
        LabelMismatchError: The tree's leaves are not the labels.
        UsageError: A depth where nothing can be asked, or an attack that is made for labels.
    """
    return attack_question(attack, Question(tree, labels, depth, meaning, temperature=temperature))


def attack_question(attack: Attack, question: Question) -> DepthAttack:
    """An attack on a question.

    Raises:
        UsageError: The attack is made for labels.
    """
    if attack.name in _LABEL_ATTACKS:
        raise UsageError(
            f"the attack {attack.name!r} has one text for each label, and none for inner nodes",
            hint="attack depths by apgd-ce or autoattack",
        )
    return DepthAttack(attack, question)


@torch.no_grad()
def stands(
    attack: Attack, victim: Victim, pixels: torch.Tensor, right: torch.Tensor
) -> torch.Tensor:
    """Whether images are right in what an attack attacks, bool ``[B]`` on the victim's device.

    For a :class:`DepthAttack` its question, for any other flat top-1.

    Args:
        attack: Any attack.
        victim: The model.
        pixels: float32 ``[B, 3, H, W]`` in [0, 1].
        right: Right labels, bool ``[B, C]``.
    """
    asked, truth = victim, right.to(victim.device)
    if isinstance(attack, DepthAttack):
        asked, truth = attack.question.victim(victim), attack.question.right(truth)
    return judge(finite_logits(asked.logits_of, pixels.to(victim.device)), truth)
