"""On a CUDA device: node log-masses and their gradients as on the CPU, the same every time."""

from __future__ import annotations

import pytest
import torch
from robustzs_training.evaluation.depths import Cut, leaf_columns

from robustzs.hierarchy.grow import imagenet_tree

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
]


@pytest.mark.parametrize("depth", [4, 8, 16])
def test_masses_are_those_of_the_cpu(depth: int) -> None:
    tree = imagenet_tree()
    cut = Cut(tree, leaf_columns(tree, tree.labels), depth)
    drawn = 20.0 * torch.randn(64, 1000, generator=torch.Generator().manual_seed(depth))
    weight = torch.randn(64, len(cut.nodes), generator=torch.Generator().manual_seed(1))
    right = torch.zeros(64, 1000, dtype=torch.bool)
    right[torch.arange(64), torch.arange(64)] = True

    def run(device: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        logits = drawn.to(device).requires_grad_()
        masses = cut.log_masses(logits, 1.3)
        (gradient,) = torch.autograd.grad((masses * weight.to(device)).sum(), logits)
        return masses.detach().cpu(), gradient.cpu(), cut.right(right.to(device)).cpu()

    expected, found, again = run("cpu"), run("cuda"), run("cuda")
    torch.testing.assert_close(found[0], expected[0], rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(found[1], expected[1], rtol=1e-4, atol=1e-4)
    assert torch.equal(found[2], expected[2])
    assert all(torch.equal(one, other) for one, other in zip(found, again, strict=True))
