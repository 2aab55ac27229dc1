"""The server that one writes in an afternoon: FastAPI, open_clip, torch.

    uvicorn benchmarks.service.plain:app

The same weights, labels and prompt as robustzs-lite-clean has. Features of the classes are computed
once, at the start (``$PLAIN_CACHE`` keeps them in a file). No batching, no limits, no tree.
"""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import numpy as np
import open_clip
import torch
from fastapi import FastAPI, UploadFile
from PIL import Image

from benchmarks.torch_reference import BUNDLE, LABELS, load

torch.set_num_threads(int(os.environ.get("PLAIN_THREADS", torch.get_num_threads())))
model, tokenizer = load()
manifest = json.loads((BUNDLE / "bundle.json").read_text())
preprocess = open_clip.image_transform(
    tuple(manifest["preprocess"]["image_size"]),
    is_train=False,
    mean=tuple(manifest["mean"]),
    std=tuple(manifest["std"]),
)
scale = manifest["logit_scale"] / manifest["temperature"]
with LABELS.open(encoding="utf-8") as stream:
    labels = list(csv.DictReader(stream))


def class_features() -> torch.Tensor:
    cache = os.environ.get("PLAIN_CACHE")
    if cache and Path(cache).exists():
        return torch.from_numpy(np.load(cache))
    prompts = [f"a photo of a {label['prompt']}." for label in labels]
    with torch.inference_mode():
        chunks = [prompts[start : start + 100] for start in range(0, len(prompts), 100)]
        features = torch.cat([model.encode_text(tokenizer(chunk)) for chunk in chunks])
        features = torch.nn.functional.normalize(features, dim=-1)
    if cache:
        np.save(cache, features.numpy())
    return features


text_features = class_features()
app = FastAPI()


def answer(image: UploadFile) -> dict[str, list[dict[str, str | float]]]:
    pixels = preprocess(Image.open(image.file).convert("RGB")).unsqueeze(0)
    with torch.inference_mode():
        image_features = model.encode_image(pixels, normalize=True)
        probabilities = (scale * image_features @ text_features.T).softmax(dim=-1)[0]
        values, indices = probabilities.topk(5)
    return {
        "results": [
            {"label": labels[index]["name"], "probability": value}
            for value, index in zip(values.tolist(), indices.tolist(), strict=True)
        ]
    }


@app.get("/health")
def health() -> dict[str, str]:
    return {"status": "ok"}


@app.post("/classify")
def classify(image: UploadFile) -> dict[str, list[dict[str, str | float]]]:
    """In a thread of FastAPI's pool: several requests compute at once."""
    return answer(image)


@app.post("/classify-async")
async def classify_async(image: UploadFile) -> dict[str, list[dict[str, str | float]]]:
    """On the event loop: one request at a time."""
    return answer(image)
