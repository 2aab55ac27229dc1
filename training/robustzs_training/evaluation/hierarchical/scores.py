"""What is kept of every image, clean or attacked: enough for all metrics, and small.

Probabilities are kept along the path that each image's answer walks, not for whole trees, so that
an image takes a few hundred bytes however large the tree is.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch

from robustzs.answer import StopRule
from robustzs.errors import UsageError
from robustzs.hierarchy import inference
from robustzs.hierarchy.tree import Hierarchy
from robustzs.labels import LabelSet
from robustzs.metrics.consistency import is_consistent
from robustzs.metrics.verdicts import flat_leaves, path_ends
from robustzs_training.evaluation.attacks.view import finite_logits, judge
from robustzs_training.evaluation.base import Attack, TensorFunction, Victim
from robustzs_training.evaluation.hierarchical.cuts import Cut, choose_depths, leaf_columns
from robustzs_training.evaluation.hierarchical.questions import (
    DepthAttack,
    DepthMeaning,
    Question,
    attack_question,
    prompted,
)

FLAT = "flat"
"""The name of flat top-1 among questions."""
MEANINGS: tuple[DepthMeaning, ...] = ("rollup", "prompt")

BoolArray = npt.NDArray[np.bool_]
IndexArray = npt.NDArray[np.int64]
Float32Array = npt.NDArray[np.float32]


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Scores:
    """Of images, in the order in which they were scored; ``Q`` questions, flat top-1 the first.

    Attributes:
        names: Of the questions: ``flat``, ``rollup:4``, ``prompt:4``.
        right: bool ``[n, Q]``: verdicts.
        sure: float32 ``[n, Q]``: probability of the verdict, among the nodes of its question.
        margin: float32 ``[n, Q]``: log-probability of what is right minus that of the best other
            node; infinite where everything is right.
        truth: Node that holds exactly the right labels ``[n]``; -1 where no node does.
        top: Leaf of flat top-1, as a node ``[n]``.
        end: Leaf at which the path of the answer ends ``[n]``.
        path: float32 ``[n, height + 1]``: deployed probability of the path's node at each depth, 0
            beyond its end.
        consistent: bool ``[n]``: right at the leaf and in every branch, by the nodes' prompts;
            ``None`` where these were not asked.
    """

    names: tuple[str, ...]
    right: BoolArray
    sure: Float32Array
    margin: Float32Array
    truth: IndexArray
    top: IndexArray
    end: IndexArray
    path: Float32Array
    consistent: BoolArray | None = None

    def __len__(self) -> int:
        return len(self.top)

    def place(self, name: str) -> int:
        """The column of a question.

        Raises:
            UsageError: It was not asked.
        """
        if name not in self.names:
            raise UsageError(f"{name!r} was not asked", hint=f"asked: {', '.join(self.names)}")
        return self.names.index(name)

    def with_right(self, name: str, right: npt.ArrayLike) -> Scores:
        """The same, with the verdicts of a question as another measurement found them."""
        column, verdicts = self.place(name), self.right.copy()
        verdicts[:, column] = np.asarray(right, np.bool_)
        return dataclasses.replace(self, right=verdicts)

    def take(self, rows: npt.ArrayLike) -> Scores:
        """Those of some images; places or bools."""
        chosen = np.asarray(rows)
        return dataclasses.replace(
            self, **{name: array[chosen] for name, array in _arrays(self).items()}
        )

    def to_notes(self) -> dict[str, tuple[int, ...]]:
        """Columns of integers, one number for each image: for journals, and without loss."""
        return {
            name if column is None else f"{name}.{column}": tuple(values.tolist())
            for name, array in _arrays(self).items()
            for column, values in _columns(_as_integers(array))
        }

    @classmethod
    def from_notes(cls, notes: Mapping[str, Sequence[int]], names: Sequence[str]) -> Scores:
        """Read :meth:`to_notes`.

        Args:
            notes: Further columns are left alone.
            names: Of the questions.

        Raises:
            UsageError: Columns are missing.
        """
        found: dict[str, npt.NDArray[np.generic]] = {}
        for field, kind in _KINDS.items():
            if field in notes:
                whole = np.asarray(notes[field], np.int64)
            else:
                widths = [int(n.split(".")[1]) for n in notes if n.startswith(f"{field}.")]
                if not widths and field == "consistent":
                    continue
                width = len(names) if field in ("right", "sure", "margin") else len(widths)
                columns = [notes.get(f"{field}.{column}") for column in range(width)]
                if not columns or any(column is None for column in columns):
                    raise UsageError(
                        f"notes lack columns of {field!r}", hint="give those of to_notes"
                    )
                whole = np.stack([np.asarray(each, np.int64) for each in columns], axis=1)
            found[field] = _from_integers(whole, kind)
        return cls(names=tuple(names), **found)  # type: ignore[arg-type]


_KINDS: dict[str, type[np.generic]] = {
    "right": np.bool_,
    "sure": np.float32,
    "margin": np.float32,
    "truth": np.int64,
    "top": np.int64,
    "end": np.int64,
    "path": np.float32,
    "consistent": np.bool_,
}


def join_scores(parts: Sequence[Scores]) -> Scores:
    """Scores of several batches as one.

    Raises:
        UsageError: There are none, or they answer different questions.
    """
    if not parts or len({part.names for part in parts}) != 1:
        raise UsageError("scores of no batch, or of different questions, cannot be joined")
    each = [_arrays(part) for part in parts]
    return dataclasses.replace(
        parts[0],
        **{name: np.concatenate([one[name] for one in each]) for name in each[0]},  # type: ignore[arg-type]
    )


class Scorer:
    """Asks a victim all questions about a tree.

    Attributes:
        tree: The tree.
        questions: At the depths; flat top-1 goes without saying.
        rule: How the path of the deployed answer is chosen.
        temperature: Of the leaves' softmax.

    Args:
        tree: Its leaves are the labels.
        labels: What the victim's logits stand for.
        depths: See :func:`~.cuts.choose_depths`.
        meanings: Which verdicts are asked for.
        temperature: As deployed.
        rule: As deployed.

    Raises:
        LabelMismatchError: The tree's leaves are not the labels.
        UsageError: A depth where nothing can be asked.
    """

    def __init__(
        self,
        tree: Hierarchy,
        labels: LabelSet,
        depths: str | Sequence[int] | None = None,
        *,
        meanings: Sequence[DepthMeaning] = MEANINGS,
        temperature: float = 1.0,
        rule: StopRule = "greedy",
    ) -> None:
        self.tree = tree
        self.rule: StopRule = rule
        self.temperature = temperature
        self._columns = leaf_columns(tree, labels)
        self._leaves = Cut(tree, self._columns, int(tree.depth.max()))
        self.questions = tuple(
            Question(tree, labels, depth, meaning, temperature=temperature)
            for meaning in dict.fromkeys(meanings)
            for depth in choose_depths(tree, depths)
        )
        self._asks_prompts = "prompt" in meanings
        self._last: tuple[Victim, TensorFunction] | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Of all questions, flat top-1 first."""
        return (FLAT, *(question.name for question in self.questions))

    def attacks(self, attack: Attack) -> list[Attack]:
        """The attack on the labels, then one on every question."""
        return [attack, *(attack_question(attack, question) for question in self.questions)]

    def name_of(self, attack: Attack) -> str:
        """The name of the question that an attack attacks."""
        return attack.question.name if isinstance(attack, DepthAttack) else FLAT

    @torch.no_grad()
    def __call__(self, victim: Victim, pixels: torch.Tensor, right: torch.Tensor) -> Scores:
        """Score a batch.

        Args:
            victim: The model.
            pixels: float32 ``[B, 3, H, W]`` in [0, 1], clean or perturbed.
            right: Right labels, bool ``[B, C]``.
        """
        shown, truth = pixels.to(victim.device), right.to(victim.device)
        logits = finite_logits(victim.logits_of, shown)
        node_logits = self._node_logits(victim, shown)
        asked = [
            _asked(self._leaves, self._leaves.log_masses(logits.double(), self.temperature), truth)
        ]
        asked[0] = (judge(logits, truth), *asked[0][1:])
        for question in self.questions:
            cut = question.cut
            if question.meaning == "prompt" and node_logits is not None:
                chosen = node_logits[:, torch.from_numpy(cut.nodes).to(node_logits.device)]
                log_probs = (chosen.double() / self.temperature).log_softmax(dim=1)
            else:
                log_probs = cut.log_masses(logits.double(), self.temperature)
            asked.append(_asked(cut, log_probs, truth))
        verdicts, sure, margin = (
            torch.stack(parts, dim=1).cpu() for parts in zip(*asked, strict=True)
        )
        nodes = _nodes_of(truth.cpu().numpy()[:, self._columns], self.tree)
        top, end, path = self._walk(logits)
        consistent = None
        if node_logits is not None:
            known = nodes >= 0
            consistent = np.zeros(len(nodes), np.bool_)
            consistent[known] = is_consistent(
                node_logits.cpu().numpy()[known], top[known], nodes[known], self.tree
            )
        return Scores(
            names=self.names,
            right=verdicts.numpy(),
            sure=sure.float().numpy(),
            margin=margin.float().numpy(),
            truth=nodes,
            top=top,
            end=end,
            path=path,
            consistent=consistent,
        )

    def _node_logits(self, victim: Victim, pixels: torch.Tensor) -> torch.Tensor | None:
        if not self._asks_prompts:
            return None
        if self._last is None or self._last[0] is not victim:
            self._last = (victim, prompted(victim, self.tree.prompts))
        return finite_logits(self._last[1], pixels)

    def _walk(self, logits: torch.Tensor) -> tuple[IndexArray, IndexArray, Float32Array]:
        """Flat top-1, the path's end, and the deployed probabilities along it."""
        tree = self.tree
        leaves = (logits.double() / self.temperature).float().cpu().numpy()[:, self._columns]
        probs = inference.marginal(leaves, tree)
        top, end = flat_leaves(probs, tree), path_ends(probs, tree, rule=self.rule)
        path = np.zeros((len(end), int(tree.depth.max()) + 1), np.float32)
        rows, at = np.arange(len(end)), end
        while len(rows):
            path[rows, tree.depth[at]] = probs[rows, at]
            inside = at > 0
            rows, at = rows[inside], tree.parent[at[inside]].astype(np.int64)
        return top, end, path


def _asked(
    cut: Cut, log_probs: torch.Tensor, right: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Verdict, probability of the verdict, and margin, each ``[B]``."""
    nodes = cut.right(right)
    best, place = log_probs.max(dim=1)
    own = log_probs.masked_fill(~nodes, -torch.inf).logsumexp(dim=1)
    other = log_probs.masked_fill(nodes, -torch.inf).amax(dim=1)
    verdict = nodes.gather(1, place[:, None]).squeeze(1)
    return verdict, best.exp().clamp(max=1.0), own - other


def _nodes_of(leaves: BoolArray, tree: Hierarchy) -> IndexArray:
    """The lowest node that covers exactly the right leaves of each row, or -1."""
    first = leaves.argmax(axis=1)
    last = leaves.shape[1] - 1 - leaves[:, ::-1].argmax(axis=1)
    node = tree.lca(tree.leaf_nodes[first], tree.leaf_nodes[last]).astype(np.int64)
    exact = tree.n_leaf_descendants[node] == leaves.sum(axis=1)
    return np.where(exact, node, -1)


def _arrays(scores: Scores) -> dict[str, npt.NDArray[np.generic]]:
    found = {name: getattr(scores, name) for name in _KINDS}
    return {name: array for name, array in found.items() if array is not None}


def _as_integers(array: npt.NDArray[np.generic]) -> IndexArray:
    if array.dtype == np.float32:  # its bits
        return np.ascontiguousarray(array).view(np.int32).astype(np.int64)
    return array.astype(np.int64)


def _from_integers(array: IndexArray, kind: type[np.generic]) -> npt.NDArray[np.generic]:
    if kind is np.float32:
        return np.ascontiguousarray(array.astype(np.int32)).view(np.float32)
    return array.astype(kind)


def _columns(array: IndexArray) -> list[tuple[int | None, IndexArray]]:
    if array.ndim == 1:
        return [(None, array)]
    return [(column, array[:, column]) for column in range(array.shape[1])]
