"""Two independent implementations of AutoAttack on the same images: how many verdicts differ.

Ours (APGD of pyautoattack, one image's noise from its row) against ``torchattacks``, on the same
model, pixels, labels, radius and steps. ``torchattacks`` asks for a ``requests`` of 2021, so it
lives in a virtual environment of its own, ``.venv-second``, which borrows torch and robustzs from
the one that this runs in. Pixels and verdicts cross as safetensors; the model is loaded twice.

All images start right: an image's label is what the model says of it. Both see logits whose median
gap is 10, so that what differs is the attack and not the scale.

    make second-opinion
    python -m benchmarks.second_opinion --model BUNDLE --eps 1/255 --steps 100
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
import venv
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from robustzs_training.evaluation.base import Victim

REPOSITORY = Path(__file__).parents[1]
ENVIRONMENT = REPOSITORY / ".venv-second"
REQUIREMENTS = (
    "torchattacks==3.5.1",
    "requests==2.25.1",
    "urllib3==1.26.20",
    "idna==2.10",
    "chardet==4.0.0",
    "certifi",
)
ALLOWED = 4  # of 200
GAP = 10.0
ATTACKS = ("apgd-ce", "apgd-ce + apgd-t")


def main() -> int:
    """Compare, or (inside the second environment) give the second opinion."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="robustzs-lite-clean")
    parser.add_argument("--eps", default="0.25/255")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--image-size", type=int, default=96)
    parser.add_argument("--batch-size", type=int, default=50)
    parser.add_argument("--environment", type=Path, default=ENVIRONMENT)
    parser.add_argument("--judge", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.judge is not None:
        judge(options.judge)
        return 0
    return compare(options)


# ---- both ----------------------------------------------------------------------------------------


def victim_of_settings(settings: dict[str, Any]) -> tuple[Victim, torch.nn.Module]:
    """The same model in both environments."""
    from robustzs_training.evaluation.victim import victim_of
    from robustzs_training.export.sources import SourceRequest, load_source
    from robustzs_training.factory import adapter_of, tokenizer_for

    from robustzs.labels import LabelSet
    from robustzs.labels.templates import get_templates

    source = load_source(SourceRequest(model=settings["model"]))
    model = adapter_of(source)
    geometry = None if source.manifest is None else source.manifest.geometry
    labels = LabelSet.from_names(settings["classes"])
    victim = victim_of(
        model,
        tokenizer_for(source),
        labels,
        get_templates("single"),
        geometry,
        logit_scale=settings.get("logit_scale"),
    )
    return victim, model


# ---- ours ----------------------------------------------------------------------------------------


def compare(options: argparse.Namespace) -> int:
    """Attack with ours, ask the other, print both; 1 if too many verdicts differ."""
    import torch
    from robustzs_training.data.openmoji import open_held_out
    from robustzs_training.evaluation.heldout import read_pictures
    from robustzs_training.export.sources import SourceRequest, load_source
    from safetensors.torch import load_file, save_file

    from robustzs.settings import cache_dir
    from robustzs.threat import ThreatModel

    config = load_source(SourceRequest(model=options.model)).preprocess
    size = (options.image_size, options.image_size)
    config = config.model_copy(update={"image_size": size, "resize_size": None})
    pictures = read_pictures(
        open_held_out(cache=cache_dir() / "data"), config, text="", n_images=options.images
    )
    pixels = pictures.pixels
    if len(pixels) < options.images:
        print(f"there are only {len(pixels)} pictures", file=sys.stderr)
        return 1
    settings: dict[str, Any] = {
        "model": options.model,
        "classes": list(pictures.classes.names),
        "eps": ThreatModel.parse(options.eps).eps,
        "steps": options.steps,
        "batch_size": options.batch_size,
    }
    victim, _ = victim_of_settings({**settings, "logit_scale": 1.0})
    with torch.no_grad():
        logits = torch.cat([victim.logits_of(part) for part in pixels.split(50)])
    gaps = logits.amax(dim=1) - logits.amin(dim=1)
    settings["logit_scale"] = GAP / float(gaps.median())
    labels = logits.argmax(dim=1)
    started = time.monotonic()
    ours = attack(victim_of_settings(settings)[0], pixels, labels, settings)
    print(f"ours: {time.monotonic() - started:.0f} s", flush=True)
    python = second_environment(options.environment)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        (place / "settings.json").write_text(json.dumps(settings), encoding="utf-8")
        save_file({"pixels": pixels, "labels": labels}, place / "images.safetensors")
        started = time.monotonic()
        subprocess.run(
            [python, "-m", "benchmarks.second_opinion", "--judge", folder],
            cwd=REPOSITORY,
            check=True,
        )
        print(f"torchattacks: {time.monotonic() - started:.0f} s", flush=True)
        theirs = load_file(place / "verdicts.safetensors")
    return told(ours, theirs, options)


def told(
    ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor], options: argparse.Namespace
) -> int:
    """Print the comparison; 1 if too many verdicts differ."""
    print(f"{options.model}, eps {options.eps}, {options.steps} steps, {options.images} images")
    worst = 0
    for name in ATTACKS:
        one, other = ours[name], theirs[name]
        differing = int((one != other).sum())
        worst = max(worst, differing)
        print(
            f"  {name:18} standing: ours {int(one.sum())}, torchattacks {int(other.sum())}; "
            f"differing {differing} (only ours breaks {int((~one & other).sum())}, "
            f"only theirs {int((one & ~other).sum())})"
        )
    allowed = ALLOWED * options.images // 200
    print(f"at most {allowed} may differ: {'yes' if worst <= allowed else 'NO'}")
    return int(worst > allowed)


def attack(
    victim: Victim, pixels: torch.Tensor, labels: torch.Tensor, settings: dict[str, Any]
) -> dict[str, torch.Tensor]:
    """Which images stand, by attack."""
    import torch
    from robustzs_training.evaluation.attacks import build_attack

    from robustzs.threat import ThreatModel

    threat = ThreatModel(eps=settings["eps"])
    right = torch.nn.functional.one_hot(labels, len(settings["classes"])).bool()
    standing = torch.ones(len(pixels), dtype=torch.bool)
    found = {}
    for key, name in zip(ATTACKS, ("apgd-ce", "apgd-t"), strict=True):
        member = build_attack(name, threat, n_steps=settings["steps"], rescale=False)
        for rows in standing.nonzero().flatten().split(settings["batch_size"]):
            proposal = member(victim, pixels[rows], right[rows], rows.tolist())
            standing[rows] = ~proposal.broken
        found[key] = standing.clone()
    return found


# ---- theirs --------------------------------------------------------------------------------------


def second_environment(folder: Path) -> str:
    """Python of the environment of ``torchattacks``, made if it is not there.

    Its own packages come first; what it lacks (torch, robustzs) is found where this runs.
    """
    python = folder / "bin" / "python"
    stamp = folder / ".installed"
    wanted = "\n".join((*REQUIREMENTS, sysconfig.get_path("purelib")))
    if stamp.is_file() and stamp.read_text(encoding="utf-8") == wanted:
        return str(python)
    shutil.rmtree(folder, ignore_errors=True)
    venv.create(folder, with_pip=True)
    pip = [str(python), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    subprocess.run([*pip, "--no-deps", *REQUIREMENTS], check=True)
    own = subprocess.run(
        [str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
    borrowed = sysconfig.get_path("purelib")
    line = f"import site; site.addsitedir({borrowed!r})\n"  # reads that folder's .pth files, too
    (Path(own) / "borrowed.pth").write_text(line, encoding="utf-8")
    stamp.write_text(wanted, encoding="utf-8")
    return str(python)


def judge(folder: Path) -> None:
    """Attack with ``torchattacks``; leaves verdicts in ``folder``."""
    import torch
    import torchattacks
    from safetensors.torch import load_file, save_file

    class Logits(torch.nn.Module):
        """What ``torchattacks`` takes: a module with parameters."""

        def __init__(self, victim: Victim, model: torch.nn.Module) -> None:
            super().__init__()
            self.model = model
            self.logits_of = victim.logits_of

        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            return self.logits_of(pixels.contiguous(memory_format=torch.channels_last))

    settings = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
    images = load_file(folder / "images.safetensors")
    model = Logits(*victim_of_settings(settings)).eval()
    shared = {"eps": settings["eps"], "norm": "Linf", "steps": settings["steps"], "seed": 0}
    attacks = (
        torchattacks.APGD(model, loss="ce", **shared),
        torchattacks.APGDT(model, n_classes=min(10, len(settings["classes"])), **shared),
    )
    standing = torch.ones(len(images["pixels"]), dtype=torch.bool)
    found = {}
    for key, each in zip(ATTACKS, attacks, strict=True):
        for rows in standing.nonzero().flatten().split(settings["batch_size"]):
            pixels, labels = images["pixels"][rows], images["labels"][rows]
            adversarial = each(pixels, labels).detach()
            delta = (adversarial - pixels).abs().amax()
            if float(delta) > settings["eps"] + 1e-6:
                raise SystemExit(f"torchattacks left the ball: {float(delta)}")
            with torch.no_grad():
                standing[rows] = model(adversarial).argmax(dim=1) == labels
        found[key] = standing.clone()
    save_file(found, folder / "verdicts.safetensors")


if __name__ == "__main__":
    sys.exit(main())
