"""Shards as CLIP-Benchmark publishes them, in small: pictures, class names, templates."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tests.training.data.shard_files import image_bytes, write_shard


def write_shards(
    root: Path, name: str, classes: Sequence[str], n: int = 6, size: tuple[int, int] = (32, 32)
) -> None:
    """One shard of ``n`` pictures, and what lies beside it."""
    examples = [
        {
            "__key__": f"s{i:07d}",
            "webp": image_bytes(i, "WEBP", size=size),
            "cls": str(i % len(classes)).encode(),
        }
        for i in range(n)
    ]
    write_shard(root / name / "test" / "0.tar", examples)
    (root / name / "classnames.txt").write_text("\n".join(classes) + "\n")
    templates = "a blurry photo of a {c}.\na photo of the {c}.\n"
    (root / name / "zeroshot_classification_templates.txt").write_text(templates)
