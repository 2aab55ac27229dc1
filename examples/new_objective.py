"""A training objective of one's own, from the equation to a bundle (needs the extra `train`).

TRADES (Zhang et al., ICML 2019) on a CLIP model: stay right on clean images, and predict the same
for attacked ones::

    L = CE(p(x), y) + 6 KL(p(x) || p(x + d)),    d raises the KL term
"""

import argparse
from pathlib import Path

import torch
from robustzs_training.attacks.pgd import Tensors
from robustzs_training.command import run_train
from robustzs_training.objectives import Batch, LossTerms
from robustzs_training.objectives.tecoa import ClassObjective
from robustzs_training.objectives.terms import kl_divergence
from robustzs_training.request import TrainRequest


class Trades(ClassObjective):
    def prepare(self, batch: Batch) -> Batch:
        with torch.no_grad():  # the attack's target: fixed while it climbs
            clean = self.logits(self.model.image_features(batch.pixels))
        return batch.with_constants(clean=clean)

    def attack_loss(self, batch: Batch, perturbed: Tensors) -> torch.Tensor:
        logits = self.logits(self.model.image_features(perturbed["pixels"]))
        return kl_divergence(batch.constant("clean"), logits, "batchmean")

    def loss(self, batch: Batch, perturbed: Tensors) -> LossTerms:
        clean = self.model.image_features(batch.pixels)
        attacked = self.model.image_features(perturbed["pixels"])
        kl = kl_divergence(self.logits(clean), self.logits(attacked), "batchmean")
        return LossTerms.of(ce=self.cross_entropy(batch, clean), kl=6.0 * kl)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Train with TRADES by the quickstart's recipe.")
    parser.add_argument("output", type=Path, help="a folder that is made")
    parser.add_argument("changes", nargs="*", help="KEY=VALUE, as after `robustzs train --set`")
    given = parser.parse_args()
    request = TrainRequest(recipe="quickstart", output=given.output, changes=tuple(given.changes))
    outcome = run_train(request, own=Trades)
    print(outcome.summary["gain"] if outcome.summary else "stopped")
