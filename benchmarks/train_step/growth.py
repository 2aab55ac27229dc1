"""How the cost of one step of Hierarchical grows: attack steps, batch, levels, trees.

    python -m benchmarks.train_step.growth [--architecture ViT-B-32] [--classes 60] [--rounds 5]

Random weights, random pictures, WordNet over evenly chosen ImageNet classes. Steps of all
variants are taken in turn in one process; seconds are those of the processor, so that other work on
the machine counts little, and ratios are those of the same round. ``leaf only`` contrasts the
leaves and nothing else, and encodes only their prompts.
"""

from __future__ import annotations

import argparse
import contextlib
import platform
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from open_clip import get_tokenizer
from robustzs_training.adapter import ClipAdapter
from robustzs_training.models import build_model
from robustzs_training.objectives import Batch, Hierarchical, HierarchicalOptions
from robustzs_training.objectives.levels import LevelTable, build_levels

from benchmarks.train_step.setting import LEARNING_RATE, Setting, model_config
from robustzs.hierarchy.forest import Forest
from robustzs.hierarchy.grow import grow_wordnet_tree
from robustzs.hierarchy.noun_index import NounIndex
from robustzs.labels import LabelSet
from robustzs.threat import AttackConfig, ThreatModel

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
DEPTHS = (None, 7, 4)  # of the trees of a forest


def trees(n_classes: int, n_trees: int) -> Forest:
    """WordNet over ``n_classes`` classes of ImageNet, cut at other depths for further trees."""
    every = LabelSet.imagenet1k()
    labels = LabelSet(tuple(every[i * len(every) // n_classes] for i in range(n_classes)))
    return Forest(
        tuple(
            grow_wordnet_tree(labels, NounIndex.load(), max_depth=depth, name=f"depth-{depth}")
            for depth in DEPTHS[:n_trees]
        )
    )


def leaves_only(table: LevelTable) -> LevelTable:
    """The leaf level of the first tree, and its prompts alone."""
    n_prompts = int(table.leaf_rows.max()) + 1
    tree = table.trees[0]
    leaf = tree.levels[0]
    own = len(leaf.nodes)
    leaf = replace(leaf, columns=leaf.columns[:own], excluded=leaf.excluded[:, :own])
    alone = replace(tree, levels=(leaf,), edges=tree.edges[:0], edge_weights=tree.edge_weights[:0])
    return LevelTable(prompts=table.prompts[:n_prompts], leaf_rows=table.leaf_rows, trees=(alone,))


@dataclass
class Variant:
    """One thing to take steps of, and the seconds that they took."""

    name: str
    objective: Hierarchical
    batch_size: int
    n_steps: int
    bf16: bool
    seconds: list[float] = field(default_factory=list)

    @property
    def n_prompts(self) -> int:
        return len(self.objective.prompt_ids)

    def step(self) -> float:
        """Attack, loss, gradients, update."""
        objective = self.objective
        objective.select_trainable_()
        setting = Setting(batch_size=self.batch_size, n_steps=self.n_steps, seed=0)
        pixels = setting.pixels().contiguous(memory_format=torch.channels_last)
        generator = torch.Generator().manual_seed(1)
        n_labels = len(objective.leaf_rows)
        labels = torch.randint(n_labels, (self.batch_size,), generator=generator)
        optimizer = torch.optim.SGD(list(objective.trainable().values()), lr=LEARNING_RATE)
        attack = AttackConfig(n_steps=self.n_steps, step_size=1 / 255)
        half: contextlib.AbstractContextManager[object] = contextlib.nullcontext()
        if self.bf16:
            half = torch.autocast("cpu", torch.bfloat16)
        start = time.process_time()
        with half:
            batch = objective.prepare(Batch(pixels=pixels, labels=labels))
            threat = ThreatModel(norm="Linf", eps=1 / 255)
            perturbed = objective.perturb(batch, threat, attack)
            total = objective(batch, perturbed).total
        total.backward()
        optimizer.step()
        objective.clamp_()
        seconds = time.process_time() - start
        optimizer.zero_grad()
        return seconds


def measure(title: str, variants: Sequence[Variant], rounds: int) -> None:
    """Take steps in turn; print CPU seconds, and ratios to the first variant."""
    print(f"\n{title}   ({rounds} rounds; median, min-max)")
    for count in range(rounds + 1):
        for variant in variants:
            seconds = variant.step()
            if count:
                variant.seconds.append(seconds)
    first = variants[0]
    for variant in variants:
        ratios = [b / a for a, b in zip(first.seconds, variant.seconds, strict=True)]
        print(
            f"  {variant.name:<28} {_spread(variant.seconds)} s   "
            f"{_spread(ratios)} x   {variant.n_prompts:4d} prompts "
            f"({variant.n_prompts / first.n_prompts:.2f} x)",
            flush=True,
        )


def _spread(values: Sequence[float]) -> str:
    return f"{statistics.median(values):6.3f} ({min(values):.3f}-{max(values):.3f})"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--architecture", default="ViT-B-32")
    parser.add_argument("--classes", type=int, default=60)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--n-steps", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--fp32", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    adapter = ClipAdapter(build_model(model_config(arguments.architecture)), MEAN, STD)
    adapter.to(memory_format=torch.channels_last)
    forest = trees(arguments.classes, len(DEPTHS))
    tokenize = get_tokenizer("ViT-B-32")
    print(
        f"{arguments.architecture}, {arguments.batch_size} images, {arguments.n_steps} attack "
        f"steps, {arguments.classes} classes, {'fp32' if arguments.fp32 else 'bf16 autocast'}; "
        f"python {platform.python_version()}, torch {torch.__version__}, "
        f"{torch.backends.cpu.get_cpu_capability()}, {arguments.threads} threads",
        flush=True,
    )

    def variant(
        name: str,
        *,
        n_trees: int = 1,
        n_levels: int = 5,
        text: bool = False,
        batch_size: int = arguments.batch_size,
        n_steps: int = arguments.n_steps,
    ) -> Variant:
        some = Forest(forest.trees[:n_trees])
        table = build_levels(some, n_levels=max(n_levels, 1))
        if n_levels == 0:
            table = leaves_only(table)
        options = HierarchicalOptions(n_levels=max(n_levels, 1), text_eps=2e-4 if text else None)
        ids = tokenize([f"This is a photo of a {prompt}" for prompt in table.prompts])
        objective = Hierarchical(adapter, table, ids, options).train()
        return Variant(name, objective, batch_size, n_steps, bf16=not arguments.fp32)

    rounds = arguments.rounds
    for text in (False, True):
        levels = [variant("leaf only", n_levels=0, text=text)]
        levels += [variant(f"L = {n}", n_levels=n, text=text) for n in (1, 3, 5)]
        levels += [variant(f"L = 5, {n} trees", n_trees=n, text=text) for n in (2, 3)]
        measure(f"levels and trees, text perturbation {'on' if text else 'off'}", levels, rounds)
    counts = [variant(f"{n} attack steps", n_steps=n) for n in (0, 1, 2, 4, 8)]
    measure("attack steps", counts, rounds)
    n_images = arguments.batch_size
    sizes = [variant(f"{n} images", batch_size=n) for n in (n_images // 2, n_images, 2 * n_images)]
    measure("batch", sizes, rounds)


if __name__ == "__main__":
    main()
