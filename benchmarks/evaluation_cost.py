"""What `robustzs evaluate` costs, beside the plain loop over the same attack library.

    make benchmark-evaluation
    python -m benchmarks.evaluation_cost [--n 25 --n 100] [--eps 1/255,2/255] [--steps 100]

Both sides measure the same model on the same pictures of Debian's dataset-fashion-mnist within the
same radii by the same attacks of ``pyautoattack`` (apgd-ce from 5 starts, apgd-t for 9 targets) on
as many threads. The plain loop is what one writes first: all pictures in memory, and for each
radius ``AutoAttack.run_standard_evaluation``, which makes every step of a run for every picture in
it, and begins with each radius anew. Ours stops looking at a picture once it is broken, within
larger radii, too, and keeps a journal; it also runs the deployed ONNX graphs and all checks, which
the loop does not. Wall seconds and peak resident memory are those of finished processes.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
from pathlib import Path

from benchmarks.classify_cost import Cost, measure

DATA = "fashion-mnist"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="robustzs-lite-clean")
    parser.add_argument("--n", type=int, action="append", help="pictures; else 25, then 100")
    parser.add_argument("--eps", default="1/255,2/255")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--loop", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.loop is not None:
        plain_loop(options)
        return
    print(
        f"python {platform.python_version()}, {os.cpu_count()} CPUs, {options.threads} threads on "
        f"each side; {options.model}, {options.eps}, {options.steps} steps"
    )
    for n in options.n or (25, 100):
        compare(options, n)


def compare(options: argparse.Namespace, n: int) -> None:
    """One number of pictures, both sides; prints costs and verdicts."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(options.threads)}
    shared = ["--model", options.model, "--eps", options.eps, "--steps", str(options.steps)]
    shared += ["--batch-size", str(options.batch_size)]
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        robustzs = [sys.executable, "-m", "robustzs", "evaluate", *shared, "--n", str(n)]
        ours = measure([*robustzs, "--data", DATA, "--output", folder], environment)
        loop = [sys.executable, "-m", "benchmarks.evaluation_cost", *shared, "--n", str(n)]
        theirs = measure([*loop, "--loop", str(place / "loop.json")], environment)
        card = json.loads((place / "card.json").read_text(encoding="utf-8"))
        stands = {row["eps"]: row["n_robust"] for row in card["results"]}
        found = json.loads((place / "loop.json").read_text(encoding="utf-8"))
    print(f"\n{n} pictures, {card['results'][0]['n_clean']} of them right before an attack")
    for name, cost, standing in (("robustzs", ours, stands), ("plain loop", theirs, found)):
        told = ", ".join(f"{count} stand at {eps}" for eps, count in standing.items())
        print(f"  {name:<11}{_told(cost, n)}   {told}")
    print(f"  robustzs / plain loop: wall {ours.wall / theirs.wall:.2f}, "
          f"memory {ours.peak_mb / theirs.peak_mb:.2f}")  # fmt: skip


def _told(cost: Cost, n: int) -> str:
    return f"{cost.wall:7.1f} s   {n / cost.wall:6.2f} images/s   peak {cost.peak_mb:6.0f} MB"


def plain_loop(options: argparse.Namespace) -> None:
    """The attack library over everything; leaves the numbers of standing pictures."""
    import numpy as np
    import torch
    from pyautoattack import AutoAttack
    from robustzs_training.evaluation.sets import open_set
    from robustzs_training.evaluation.victim import victim_of
    from robustzs_training.export.sources import SourceRequest, load_source
    from robustzs_training.factory import adapter_of, tokenizer_for

    from robustzs import settings
    from robustzs.bundle.registry import resolve_model
    from robustzs.bundle.store import Bundle
    from robustzs.labels.templates import get_templates
    from robustzs.threat import ThreatModel

    manifest = Bundle.load(resolve_model(options.model)).manifest
    (n,) = options.n
    images = open_set(
        DATA,
        preprocess=manifest.preprocess,
        cache=settings.cache_dir() / "evaluation",
        n=n,
        seed=0,
    )
    source = load_source(SourceRequest(model=options.model))
    victim = victim_of(
        adapter_of(source),
        tokenizer_for(source),
        images.labels,
        get_templates(manifest.templates),
        manifest.geometry,
        logit_scale=manifest.logit_scale,
    )
    pixels = images.pixels(np.arange(n))
    labels = torch.from_numpy(np.array(images.right)).int().argmax(dim=1)

    def logits_of(shown: torch.Tensor) -> torch.Tensor:
        return victim.logits_of(shown.contiguous(memory_format=torch.channels_last))

    standing: dict[str, int] = {}
    for text in options.eps.split(","):
        attack = AutoAttack(
            logits_of,
            norm="Linf",
            eps=ThreatModel.parse(text).eps,
            version="custom",
            attacks=["apgd-ce", "apgd-t"],
            device="cpu",
            seed=0,
        )
        attack.verbose = False
        attack.apgd.n_iter = attack.apgd_targeted.n_iter = options.steps
        attack.apgd.n_restarts, attack.apgd_targeted.n_restarts = 5, 1
        attack.apgd_targeted.n_target_classes = min(9, len(images.labels) - 1)
        found, _ = attack.run_standard_evaluation(pixels, labels, batch_size=options.batch_size)
        with torch.no_grad():
            top = torch.cat([logits_of(part).argmax(dim=1) for part in found.split(32)])
        standing[text] = int((top == labels).sum())
    options.loop.write_text(json.dumps(standing), encoding="utf-8")


if __name__ == "__main__":
    main()
