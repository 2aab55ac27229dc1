"""One attacked training step of every objective, in one process or in several over gloo.

``python -m tests.training.objectives.two_processes RANK WORLD_SIZE FOLDER`` is one of several; rank
0 leaves its results in FOLDER. ``step(name)`` in one process takes the whole batch.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
from robustzs_training.attacks import PerturbedInput, pgd
from robustzs_training.objectives import (
    Agft,
    Batch,
    Fare,
    FareKl,
    Hierarchical,
    HierarchicalOptions,
    Objective,
    PmgAft,
    QtAft,
    QtAftHierarchical,
    SimClip,
    Tecoa,
    TgaZsr,
)
from robustzs_training.processes import all_sum, gather, rank, world_size
from torch.nn.parallel import DistributedDataParallel

from robustzs.hierarchy.forest import Forest
from robustzs.threat import AttackConfig, ThreatModel
from tests.training.tiny_models import (
    ANIMALS,
    SIZES,
    make_adapter,
    make_pixels,
    make_tokens,
    make_tree,
    tokenize,
)

NAMES = (
    "tecoa",
    "fare",
    "sim_clip",
    "pmg_sum",
    "pmg_batchmean",
    "tga_zsr",
    "agft",
    "fare_kl",
    "qt_aft",
    "hierarchical",
    "hierarchical_images_only",
    "forest",
    "qt_aft_hierarchical",
)
LABELS = [0, 2, 1, 0, 5, 6]


def build(name: str) -> Objective:
    """A fresh objective; the same weights in every process."""
    model = make_adapter()
    classes = model.class_features(make_tokens(7)[:, None])
    animals, forest = make_tree(ANIMALS), Forest((make_tree(ANIMALS), make_tree(SIZES, "sizes")))

    def tree(trees: object = animals, **options: object) -> Hierarchical:
        chosen = HierarchicalOptions(n_levels=3, **options)  # type: ignore[arg-type]
        return Hierarchical.from_hierarchy(
            model,
            trees,
            tokenize,
            template="{}",
            options=chosen,  # type: ignore[arg-type]
        )

    makers = {
        "tecoa": lambda: Tecoa(model, classes),
        "fare": lambda: Fare(model),
        "sim_clip": lambda: SimClip(model),
        "pmg_sum": lambda: PmgAft(model, classes),
        "pmg_batchmean": lambda: PmgAft(model, classes, kl_reduction="batchmean"),
        "tga_zsr": lambda: TgaZsr(model, classes),
        "agft": lambda: Agft(model, classes),
        "fare_kl": lambda: FareKl(model, classes, kl_weight=3.0),
        "qt_aft": lambda: QtAft(model),
        "hierarchical": tree,
        "hierarchical_images_only": lambda: tree(text_eps=None, level_average="images"),
        "forest": lambda: tree(forest, intra_gap="levels"),
        "qt_aft_hierarchical": lambda: QtAftHierarchical(QtAft(model), tree(forest)),
    }
    objective: Objective = makers[name]()
    with torch.no_grad():
        for parameter in model.visual.parameters():
            parameter += 0.03
    return objective.double().train()


def step(name: str) -> dict[str, npt.NDArray[np.float64]]:
    """Attack and differentiate this process's share; what comes back is the whole batch's."""
    objective = build(name)
    share = slice(rank() * len(LABELS) // world_size(), (rank() + 1) * len(LABELS) // world_size())
    batch = objective.prepare(
        Batch(
            pixels=make_pixels(len(LABELS))[share],
            labels=torch.tensor(LABELS)[share],
            caption_ids=make_tokens(len(LABELS), seed=3)[share],
        )
    )
    attack = AttackConfig(n_steps=3, step_size=1 / 255, start="none", momentum=0.9)
    perturbed = objective.perturb(batch, ThreatModel.parse("4/255"), attack)
    with torch.no_grad():
        attacked = objective.attack_loss(batch, perturbed)
    trained: torch.nn.Module = objective
    if world_size() > 1:
        trained = DistributedDataParallel(objective, broadcast_buffers=False)
    loss = trained(batch, perturbed)
    loss.total.backward()
    found = {
        "attack_loss": all_sum(attacked) / world_size(),
        "total": all_sum(loss.total) / world_size(),
        "pixels": gather(perturbed["pixels"]),
        **{f"gradient of {key}": p.grad for key, p in objective.trainable().items()},
    }
    if "prompts" in perturbed:
        found["prompts"] = perturbed["prompts"]
    return {key: value.detach().numpy() for key, value in found.items()}


def shared_input() -> dict[str, npt.NDArray[np.float32]]:
    """Each of two processes pulls one shared tensor its own way; the sum decides."""
    pulls = torch.tensor([[3.0, -1.0, 1.0], [-1.0, -1.0, -3.0]])
    own = pulls if world_size() == 1 else pulls[rank() : rank() + 1]
    threat = ThreatModel.parse("0.5")
    inputs = {
        "prompts": PerturbedInput(
            clean=torch.zeros(1, 3), threat=threat, bounds=None, shared=True, start="none"
        )
    }
    attack = AttackConfig(n_steps=2, step_size=0.1)
    found = pgd(lambda perturbed: (own * perturbed["prompts"]).sum(), inputs, attack)
    return {"prompts": found["prompts"].numpy()}


def main() -> None:
    """Be one of several processes."""
    place, size, folder = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder / 'meeting'}", rank=place, world_size=size
    )
    for name in NAMES:
        found = step(name)
        if place == 0:
            np.savez(folder / f"{name}.npz", **found)
    moved = shared_input()
    np.savez(folder / f"shared_input_{place}.npz", **moved)
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
