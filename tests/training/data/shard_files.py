"""Shards as people have them: written by WebDataset's own writer."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import webdataset
from PIL import Image


def image_bytes(seed: int, kind: str = "PNG", size: tuple[int, int] = (24, 16)) -> bytes:
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, kind)
    return out.getvalue()


def write_shard(path: Path, examples: list[dict[str, Any]]) -> Path:
    """Write raw members, each example a mapping with ``__key__`` and bytes by extension."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with webdataset.TarWriter(str(path), encoder=False, mtime=0.0) as writer:
        for example in examples:
            writer.write(example)
    return path


def write_captioned(folder: Path, n_shards: int = 3, per_shard: int = 5) -> Path:
    """``train-0000.tar`` and on: images with captions, no labels."""
    for shard in range(n_shards):
        write_shard(
            folder / f"train-{shard:04d}.tar",
            [
                {
                    "__key__": f"{i:05d}",
                    "png": image_bytes(shard * 100 + i),
                    "txt": f"picture {i} of shard {shard}".encode(),
                }
                for i in range(per_shard)
            ],
        )
    return folder
