"""Where the time of one `robustzs classify` goes, step by step in one process.

python -m benchmarks.where_time_goes PHOTO [THREADS]
"""

from __future__ import annotations

import sys
import time
from itertools import pairwise
from pathlib import Path

_START = time.perf_counter()


def main() -> None:
    photo = Path(sys.argv[1])
    threads = int(sys.argv[2]) if len(sys.argv) > 2 else None
    marks: list[tuple[str, float]] = [("start", time.perf_counter())]

    def mark(name: str) -> None:
        marks.append((name, time.perf_counter()))

    import robustzs.cli.main  # noqa: F401

    mark("import the command line (typer)")
    import numpy  # noqa: F401
    import pydantic  # noqa: F401

    mark("import numpy, pydantic")
    from robustzs.backends.onnx import load_onnxruntime

    load_onnxruntime()
    mark("import onnxruntime")
    from robustzs.classifier import Classifier, Embedder

    mark("import the classifier")
    embedder = Embedder.load("robustzs-lite", threads=threads)
    mark("open and verify the bundle")
    classifier = Classifier(embedder)
    mark("tree and text features")
    pixels = embedder.preprocess(photo)
    mark("decode and resize the photo")
    embedder.backend.encode_image(pixels[None])
    mark("create the session, first inference")
    embedder.backend.encode_image(pixels[None])
    mark("second inference (for comparison)")
    classifier.classify_pixels(pixels[None], [str(photo)])
    mark("inference, scoring, roll-up, answer")
    for (_, before), (name, after) in pairwise(marks):
        print(f"  {name:<40} {1000 * (after - before):8.1f} ms")
    print(f"  {'all of it':<40} {1000 * (marks[-1][1] - _START):8.1f} ms")


if __name__ == "__main__":
    main()
