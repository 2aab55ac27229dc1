"""One CLIP of ViT-B/32's shape with random weights, for both sides.

    python -m benchmarks.service.vit FOLDER

Makes ``FOLDER/bundle`` for robustzs and ``FOLDER/hf`` for what reads Hugging Face's folders, by
`robustzs export`: the same weights in both.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import open_clip
import torch
from safetensors.torch import save_file


def main() -> None:
    """Make both folders."""
    folder = Path(sys.argv[1]).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    weights = open_clip.create_model("ViT-B-32").state_dict()
    checkpoint = folder / "random.safetensors"
    save_file({name: value.contiguous() for name, value in weights.items()}, checkpoint)
    export = [sys.executable, "-m", "robustzs", "export"]
    first = ["ViT-B-32", "--pretrained", str(checkpoint), "--weights", "--activation", "gelu"]
    subprocess.run(
        [*export, *first, "--name", "vit-b-32-random", "-o", str(folder / "bundle"), "--force"],
        check=True,
    )
    second = [str(folder / "bundle"), "--to", "huggingface", "-o", str(folder / "hf"), "--force"]
    subprocess.run([*export, *second], check=True)


if __name__ == "__main__":
    main()
