"""A bundle made from a torch model, and proven before it is there."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save as save_tensors
from torch import nn

from robustzs.bundle.manifest import (
    BackboneRecord,
    Geometry,
    LicenceRecord,
    SourceRecord,
    Threshold,
)
from robustzs.bundle.store import Bundle
from robustzs.bundle.writer import BundleWriter
from robustzs.errors import ExportError
from robustzs.images.config import PreprocessConfig
from robustzs_training.export.encoders import (
    IMAGE_ENCODER,
    PROBE_PROMPTS,
    TEXT_ENCODER,
    Encoders,
    ImagePrecisions,
    Quantiser,
    TextPrecisions,
    write_encoders,
)
from robustzs_training.export.model_card import model_card
from robustzs_training.export.onnx_export import OnnxOptions
from robustzs_training.export.parity import ParityReport
from robustzs_training.export.tokenizers import TokenizerFile, prove_tokenizer
from robustzs_training.export.towers import ImageTower, TextTower
from robustzs_training.models import build_model

__all__ = [
    "IMAGE_ENCODER",
    "OPEN_CLIP_CONFIG",
    "PROBE_PROMPTS",
    "TEXT_ENCODER",
    "WEIGHTS",
    "BundleFacts",
    "ExportResult",
    "ImagePrecisions",
    "Quantiser",
    "TextPrecisions",
    "export_open_clip_model",
    "logit_scale_of",
    "open_clip_config_text",
]

WEIGHTS = "weights.safetensors"
OPEN_CLIP_CONFIG = "open_clip_config.json"
COSINE = Geometry()


@dataclass(frozen=True, kw_only=True)
class BundleFacts:
    """What the record of a bundle says that cannot be read off the model.

    Attributes:
        name: Of the bundle: lower case letters, digits and ``._-``.
        source: The checkpoint that it was made from.
        preprocess: How an image becomes ``pixels``: that of the model's origin.
        mean: Of the normalisation, per channel, for pixels in [0, 1]; becomes part of the graph.
        std: Likewise.
        licences: At least one.
        version: Of the bundle.
        description: One or two sentences.
        templates: Default template set, by name, or templates.
        temperature: Divides the logits; 1 leaves them.
        geometry: How features are compared.
        theta: Default stop threshold.
        low_confidence: Flat top-1 probability below which an answer is flagged.
        rejection: Similarity below which nothing fits.
        training: Training record: JSON.
    """

    name: str
    source: SourceRecord
    preprocess: PreprocessConfig
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    licences: tuple[LicenceRecord, ...]
    version: str = "1"
    description: str = ""
    templates: str | tuple[str, ...] = "single"
    temperature: float = 1.0
    geometry: Geometry = COSINE
    theta: Threshold | None = None
    low_confidence: Threshold | None = None
    rejection: Threshold | None = None
    training: Mapping[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class ExportResult:
    """A finished bundle and the differences that its proof found."""

    bundle: Bundle
    parity: ParityReport


def export_open_clip_model(
    model: nn.Module,
    *,
    config: Mapping[str, Any],
    tokenizer: TokenizerFile,
    facts: BundleFacts,
    output: Path,
    options: OnnxOptions | None = None,
    weights: Literal["none", "trained", "all"] | Mapping[str, torch.Tensor] = "none",
    backbones: Sequence[BackboneRecord] = (),
    image_precisions: ImagePrecisions | None = None,
    text_precisions: TextPrecisions | None = None,
    extra_files: Mapping[str, bytes] | None = None,
    force: bool = False,
) -> ExportResult:
    """Write a bundle from an open_clip model, after proving it.

    Args:
        model: open_clip model (CLIP, CustomTextCLIP, CoCa) on the CPU; it is put into evaluation
            mode and float32. ``logit_scale`` of the bundle is the exponential of its parameter.
        config: Its open_clip ``model_cfg``; a backbone stands as ``backbone:NAME``.
        tokenizer: From `robustzs_training.export.tokenizers`.
        facts: The rest of the record.
        output: The folder to make.
        options: How ONNX is written.
        weights: What the bundle carries for torch: nothing; everything that does not equal the
            ``backbones`` (``trained``); everything; or these tensors, named as in
            ``model.state_dict()``, which with the backbones must make up the whole model.
        backbones: Frozen parts that come from an installed package.
        image_precisions: Further image encoders.
        text_precisions: Further text encoders.
        extra_files: Further files, such as ``card.json``; ``README.md`` replaces the generated one.
        force: Replace an existing bundle.

    Raises:
        BundleExistsError: the output holds something and ``force`` is not given.
        ExportError: the model cannot be traced or quantised, or weights and backbones leave
            something out.
        ExportParityError: a graph or the tokenizer differs from the original; nothing is written.
        BundleManifestError: the facts violate the schema.
        BundleWriteError: the folder cannot be written.
    """
    model = model.float().eval()
    options = options or OnnxOptions()
    tensors = _tensors_to_carry(model, config, weights, backbones)
    prove_tokenizer(tokenizer)
    with BundleWriter(output, overwrite=force) as writer:
        towers = (ImageTower(model, facts.mean, facts.std), TextTower(model))
        encoders = write_encoders(
            writer,
            towers,
            tokenizer,
            image_size=facts.preprocess.image_size,
            geometry=facts.geometry,
            options=options,
            image_precisions=image_precisions,
            text_precisions=text_precisions,
        )
        writer.add_file("tokenizer.json", tokenizer.content)
        fields = _record(model, facts, tokenizer, options, encoders)
        if image_precisions is not None:
            fields["default_image_precision"] = image_precisions.default
        if text_precisions is not None:
            fields["default_text_precision"] = text_precisions.default
        fields["embed_dim"] = int(config["embed_dim"])
        if tensors is not None:
            fields |= _write_weights(writer, tensors, config, facts)
            fields["backbones"] = [record.model_dump(mode="json") for record in backbones]
        extra = dict(extra_files or {})
        card = json.loads(extra["card.json"]) if "card.json" in extra else None
        extra.setdefault("README.md", model_card(fields, card).encode())
        for name, content in sorted(extra.items()):
            writer.add_file(name, content)
        return ExportResult(bundle=writer.finish(fields), parity=encoders.parity)


def _tensors_to_carry(
    model: nn.Module,
    config: Mapping[str, Any],
    weights: Literal["none", "trained", "all"] | Mapping[str, torch.Tensor],
    backbones: Sequence[BackboneRecord],
) -> dict[str, torch.Tensor] | None:
    if weights == "none":
        return None
    tower = str(config["text_cfg"].get("hf_model_name", ""))
    if Path(tower).is_absolute():
        raise ExportError(
            f"a bundle cannot carry weights of a text tower that is configured in {tower!r}",
            hint="elsewhere that folder is not there: name the tower by its hub name",
        )
    state = model.state_dict()
    if weights == "all":
        return state
    # Layers of a backbone that were trained after all differ from the installed ones.
    prefixes = tuple(record.prefix for record in backbones)
    installed = build_model(config).state_dict() if prefixes else {}
    trained = {
        name: tensor
        for name, tensor in state.items()
        if not name.startswith(prefixes) or not torch.equal(tensor, installed[name])
    }
    if isinstance(weights, str):
        return trained
    unknown = sorted(set(weights) - set(state))
    absent = [name for name in trained if name not in weights]
    if unknown or absent:
        raise ExportError(
            f"the weights to carry lack {absent[:10]} and have unknown {unknown[:10]}",
            hint="weights and unchanged backbones together must make up the model",
        )
    other = [
        name
        for name in weights
        if not torch.equal(weights[name].to(state[name].dtype), state[name])
    ]
    if other:
        raise ExportError(
            f"the weights to carry are not those of the model that is exported: {other[:10]}",
            hint="round the model itself before its weights are stored in half precision",
        )
    return dict(weights)


def _write_weights(
    writer: BundleWriter,
    tensors: Mapping[str, torch.Tensor],
    config: Mapping[str, Any],
    facts: BundleFacts,
) -> dict[str, Any]:
    # Sorted and cloned: the same model gives the same bytes, whatever memory its tensors share.
    separate = {name: tensors[name].detach().clone().contiguous() for name in sorted(tensors)}
    writer.add_file(WEIGHTS, save_tensors(separate))
    writer.add_file(
        OPEN_CLIP_CONFIG, open_clip_config_text(config, facts.preprocess, facts).encode()
    )
    return {"weights": WEIGHTS, "open_clip_config": OPEN_CLIP_CONFIG}


def open_clip_config_text(
    config: Mapping[str, Any], preprocess: PreprocessConfig, normalisation: Any
) -> str:
    """``open_clip_config.json``: model and preprocessing in open_clip's own words.

    open_clip knows no resize to another size than that of the crop; ``bundle.json`` does.

    Args:
        config: ``model_cfg``.
        preprocess: How an image becomes ``pixels``.
        normalisation: Anything with ``mean`` and ``std``.
    """
    document = {
        "model_cfg": dict(config),
        "preprocess_cfg": {
            "size": list(preprocess.image_size),
            "mean": list(normalisation.mean),
            "std": list(normalisation.std),
            "interpolation": preprocess.interpolation,
            "resize_mode": preprocess.resize_mode,
        },
    }
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def _record(
    model: nn.Module,
    facts: BundleFacts,
    tokenizer: TokenizerFile,
    options: OnnxOptions,
    encoders: Encoders,
) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "name": facts.name,
        "version": facts.version,
        "description": facts.description,
        "source": facts.source.model_dump(mode="json"),
        "preprocess": facts.preprocess.model_dump(mode="json"),
        "mean": list(facts.mean),
        "std": list(facts.std),
        "logit_scale": logit_scale_of(model),
        "temperature": facts.temperature,
        "geometry": facts.geometry.model_dump(mode="json"),
        "tokenizer": tokenizer.config.model_dump(mode="json"),
        "templates": facts.templates,
        "image_encoders": dict(encoders.image),
        "text_encoders": dict(encoders.text),
        "opset": options.opset,
        "licences": [licence.model_dump(mode="json") for licence in facts.licences],
    }
    for name in ("theta", "low_confidence", "rejection"):
        threshold: Threshold | None = getattr(facts, name)
        if threshold is not None:
            fields[name] = threshold.model_dump(mode="json")
    if facts.training is not None:
        fields["training"] = dict(facts.training)
    return fields


def logit_scale_of(model: nn.Module) -> float:
    """The factor on similarities, exponential taken; a model may hold it as ``[]`` or ``[1]``."""
    with torch.no_grad():
        return float(model.get_parameter("logit_scale").double().exp().reshape(()).item())
