"""Attack a running service from outside, by its scores alone: Square (Andriushchenko et al., 2020).

Whoever can ask often enough needs no weights: full scores say of every try how close it came. Count
requests per client, and give away labels rather than probabilities where that will do.
Only against services of your own. In another terminal: robustzs serve
"""

from __future__ import annotations

import argparse
import io
import time
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
from PIL import Image
from robustzs_client import Client

PHOTO = Path(__file__).parent / "photos" / "chelsea.png"


class Endpoint:
    """Margin of the right label over the best other one, for 8-bit images; counts its queries."""

    def __init__(self, client: Client, labels: list[str], truth: str, templates: str | None):
        self.client, self.labels, self.truth = client, labels, truth
        self.options = {"hierarchy": "flat", "top_k": len(labels), "templates": templates}
        self.queries = 0

    def margin(self, image: np.ndarray) -> float:
        """Below 0: the service is wrong. In nats, from the probabilities of all labels."""
        content = io.BytesIO()
        Image.fromarray(image).save(content, format="PNG")  # lossless: what is sent is what is seen
        self.queries += 1
        answer = self.client.classify(content.getvalue(), labels=self.labels, **self.options)
        scores = {node.name: np.log(max(node.probability, 1e-30)) for node in answer.top_k}
        return float(scores.pop(self.truth) - max(scores.values()))


def square(endpoint: Endpoint, clean: np.ndarray, eps: int, queries: int, seed: int) -> np.ndarray:
    """The image of lowest margin within ``eps`` levels of ``clean`` ``[H, W, 3]`` (uint8)."""
    random = np.random.default_rng(seed)
    height, width = clean.shape[:2]

    def within(signs: np.ndarray) -> np.ndarray:
        return np.asarray(np.clip(clean.astype(int) + eps * signs, 0, 255), np.uint8)

    signs = np.repeat(random.choice([-1, 1], (1, width, 3)), height, axis=0)  # stripes, to begin
    lowest = endpoint.margin(within(signs))
    for step in range(queries - endpoint.queries):
        if lowest < 0.0:
            break
        share = 0.8 * 0.5 ** (8 * step / queries)  # squares become smaller
        side = int(np.clip(round(np.sqrt(share * height * width)), 1, min(height, width)))
        top, left = random.integers(0, height - side + 1), random.integers(0, width - side + 1)
        tried = signs.copy()
        tried[top : top + side, left : left + side] = random.choice([-1, 1], 3)
        margin = endpoint.margin(within(tried))
        if margin < lowest:
            signs, lowest = tried, margin
    return within(signs)


def main() -> None:
    """Attack one image and say what it took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("image", nargs="?", type=Path, default=PHOTO)
    parser.add_argument("--url", default="http://127.0.0.1:3000")
    parser.add_argument("--labels", default="cat,dog,bird,car,cup")
    parser.add_argument("--templates", help="as the service takes them; its default if left out")
    parser.add_argument("--eps", type=int, default=8, help="levels of 255 that a value may change")
    parser.add_argument("--queries", type=int, default=200, help="requests, at most")
    parser.add_argument("--size", type=int, default=224, help="side of the square that is sent")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="write the perturbed image here, as a PNG")
    parser.add_argument("--mine", action="store_true", help="the service, not local, is my own")
    options = parser.parse_args()
    if urlsplit(options.url).hostname not in {"127.0.0.1", "localhost", "::1"} and not options.mine:
        parser.error(f"{options.url} is not on this machine: attack services of your own (--mine)")
    if options.queries < 2 or not 1 <= options.eps <= 255:
        parser.error("at least 2 queries, and eps from 1 to 255")

    picture = Image.open(options.image).convert("RGB").resize((options.size, options.size))
    clean = np.asarray(picture)
    labels = [name.strip() for name in options.labels.split(",")]
    started = time.monotonic()
    with Client(options.url) as client:
        asked = {"labels": labels, "templates": options.templates, "hierarchy": "flat"}
        truth = client.classify(_png(clean), **asked).flat_top1.name
        endpoint = Endpoint(client, labels, truth, options.templates)
        before = endpoint.margin(clean)
        found = square(endpoint, clean, options.eps, options.queries - 2, options.seed)
        answer = client.classify(_png(found), **asked)
    rate = (endpoint.queries + 2) / (time.monotonic() - started)
    after = answer.flat_top1.name
    print(f"before: {truth}, {before:.2f} nats ahead")
    print(f"after: {after}, {'turned' if after != truth else 'still right'}")
    largest = int(np.abs(found.astype(int) - clean).max())
    print(f"{endpoint.queries + 2} queries, {rate:.1f} a second; largest change {largest}/255")
    if options.output:
        Image.fromarray(found).save(options.output)


def _png(image: np.ndarray) -> bytes:
    content = io.BytesIO()
    Image.fromarray(image).save(content, format="PNG")
    return content.getvalue()


if __name__ == "__main__":
    main()
