"""A torch model from whatever was named, with the activation and the resize of its origin."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from robustzs.bundle.manifest import BackboneRecord, BundleManifest, SourceRecord
from robustzs.bundle.registry import resolve_model
from robustzs.bundle.store import Bundle
from robustzs.errors import ExportError, ModelNotFoundError, UsageError
from robustzs.images.config import PreprocessConfig
from robustzs_training.export.activation import (
    Activation,
    ActivationFacts,
    choose_quick_gelu,
    require_kinship,
)
from robustzs_training.export.checkpoints import Checkpoint, Layout, read_checkpoint
from robustzs_training.export.hf_clip import from_hugging_face
from robustzs_training.export.origins import Origin, find_origin, tag_weights
from robustzs_training.export.tokenizers import TokenizerFile, tokenizer_of
from robustzs_training.models import build_model, load_bundle_model, load_tensors

Resize = Literal["auto", "open-clip", "qt-aft"]
DEFAULT_BASE = "openai"
_POSITION_IDS = ".position_ids"


@dataclass(frozen=True, kw_only=True)
class SourceRequest:
    """What to load.

    Attributes:
        model: Architecture, ``hf-hub:NAME``, configuration, folder or bundle.
        pretrained: Tag, ``hf-hub:NAME`` or checkpoint file.
        base: Tag or file of what a visual encoder was fine-tuned from; gives text tower and scale.
        activation: Overrides what is found, where nothing certain is known.
        resize: How images are resized; ``auto``: as the checkpoint's origin does.
    """

    model: str
    pretrained: str | None = None
    base: str | None = None
    activation: Activation = "auto"
    resize: Resize = "auto"


@dataclass(frozen=True, kw_only=True)
class SourceModel:
    """A torch model, complete, and what is known of it.

    Attributes:
        model: open_clip model, float32, on the CPU, in evaluation mode.
        config: Its open_clip ``model_cfg``.
        tokenizer: Of its text tower.
        preprocess: How its origin makes ``pixels``.
        mean: Of its normalisation.
        std: Likewise.
        source: For the record.
        notes: What was decided that the user may want to know.
        backbones: Frozen parts that an installed package provides.
        manifest: The record of the bundle that it came from, if it did.
    """

    model: nn.Module
    config: dict[str, Any]
    tokenizer: TokenizerFile
    preprocess: PreprocessConfig
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    source: SourceRecord
    notes: tuple[str, ...] = ()
    backbones: tuple[BackboneRecord, ...] = ()
    manifest: BundleManifest | None = None


def load_source(request: SourceRequest) -> SourceModel:
    """Load the torch model that was named.

    Raises:
        UsageError: nothing of that name, or options that contradict each other.
        CheckpointFormatError: a file is unsafe, unknown or leaves the activation open.
        ExportError: weights and architecture, or tower and base, do not fit each other.
        BundleWeightsMissingError: a bundle without weights was named.
    """
    bundle = _bundle_or_none(request)
    if bundle is not None:
        return _from_bundle(bundle)
    origin = find_origin(request.model, request.pretrained)
    if origin.weights is None:
        raise UsageError(f"{request.model} has no weights", hint="give --pretrained")
    tokenizer = tokenizer_of(origin.config)
    checkpoint = read_checkpoint(origin.weights)
    if request.base is not None and checkpoint.layout.is_whole:
        raise UsageError(
            f"--base {request.base} has no use: {checkpoint.name} holds both towers",
            hint="leave it away",
        )
    base = None if checkpoint.layout.is_whole else _find_base(origin, request)
    base_file = read_checkpoint(base.weights) if base is not None and base.weights else None
    facts = ActivationFacts(
        wanted=request.activation,
        architecture=bool(origin.config.get("quick_gelu", False)),
        checkpoint=checkpoint,
        tag=base.tag_quick_gelu if base is not None else origin.tag_quick_gelu,
        base=base_file,
    )
    quick_gelu, note = choose_quick_gelu(facts)
    config = _without_pretraining({**origin.config, "quick_gelu": quick_gelu})
    model = build_model(config)
    if base_file is None:
        load_tensors(model, _whole_tensors(checkpoint, model))
    else:
        _load_visual(model, checkpoint, base_file)
    preprocess, mean, std = _preprocess(model, origin, checkpoint, request.resize)
    notes = [note] if note else []
    if preprocess.resize_size is not None:
        notes.append(
            f"images are resized to {preprocess.resize_size}, {preprocess.interpolation}, before "
            "the crop"
        )
    return SourceModel(
        model=model,
        config=config,
        tokenizer=tokenizer,
        preprocess=preprocess,
        mean=mean,
        std=std,
        source=_source_record(origin, checkpoint, base, base_file, quick_gelu=quick_gelu),
        notes=tuple(notes),
    )


def _bundle_or_none(request: SourceRequest) -> Bundle | None:
    if request.pretrained is not None or request.model.startswith(("hf-hub:", "local-dir:")):
        return None
    try:
        path = resolve_model(request.model)
    except ModelNotFoundError:
        return None
    return Bundle.load(path) if (path / "bundle.json").is_file() else None


def _from_bundle(bundle: Bundle) -> SourceModel:
    loaded, manifest = load_bundle_model(bundle), bundle.manifest
    return SourceModel(
        model=loaded.model,
        config=loaded.config,
        tokenizer=tokenizer_of(loaded.config),
        preprocess=loaded.preprocess,
        mean=loaded.mean,
        std=loaded.std,
        source=manifest.source,
        backbones=manifest.backbones,
        manifest=manifest,
    )


def _find_base(origin: Origin, request: SourceRequest) -> Origin:
    name = request.base or DEFAULT_BASE
    tag = tag_weights(origin.architecture, name)
    if tag is not None:
        return tag
    if not Path(name).is_file():
        raise UsageError(
            f"the checkpoint holds a visual encoder alone, and its base {name!r} is neither a "
            f"file nor a tag of {origin.architecture}",
            hint="name the weights that it was trained from by --base TAG or FILE",
        )
    return Origin(architecture=origin.architecture, config={}, weights=Path(name))


def _without_pretraining(config: Mapping[str, Any]) -> dict[str, Any]:
    # A complete checkpoint follows: the towers' own weights would be fetched for nothing.
    vision, text = dict(config["vision_cfg"]), dict(config["text_cfg"])
    if "timm_model_name" in vision:
        vision["timm_model_pretrained"] = False
    if "hf_model_name" in text:
        text["hf_model_pretrained"] = False
    return {**config, "vision_cfg": vision, "text_cfg": text}


def _whole_tensors(checkpoint: Checkpoint, model: nn.Module) -> dict[str, torch.Tensor]:
    """Tensors of a whole model under the names that ``model`` has, older spellings included."""
    from open_clip.model import convert_to_custom_text_state_dict

    if not checkpoint.layout.is_whole:
        raise ExportError(
            f"{checkpoint.name} holds a visual encoder alone and cannot be a base",
            hint="give a checkpoint with both towers by --base",
        )
    tensors = checkpoint.tensors
    if checkpoint.layout is Layout.HUGGING_FACE:
        tensors = from_hugging_face(tensors, checkpoint.name)
    if "positional_embedding" in tensors and not hasattr(model, "positional_embedding"):
        tensors = convert_to_custom_text_state_dict(tensors)
    expected = model.state_dict()
    adapted = {}
    for key, tensor in tensors.items():
        if key.endswith(_POSITION_IDS) and key not in expected:
            continue
        if key in ("logit_scale", "logit_bias") and key in expected and tensor.numel() == 1:
            tensor = tensor.reshape(expected[key].shape)
        adapted[key] = tensor
    return adapted


def _load_visual(model: nn.Module, checkpoint: Checkpoint, base: Checkpoint) -> None:
    tensors = _whole_tensors(base, model)
    load_tensors(model, tensors)
    visual = model.get_submodule("visual")
    own = {key: tensor.clone() for key, tensor in visual.state_dict().items()}
    load_tensors(visual, checkpoint.tensors)
    require_kinship(checkpoint.tensors, own, checkpoint.name, base.name)


def _preprocess(
    model: nn.Module, origin: Origin, checkpoint: Checkpoint, resize: Resize
) -> tuple[PreprocessConfig, tuple[float, float, float], tuple[float, float, float]]:
    from open_clip.transform import PreprocessCfg, merge_preprocess_dict

    settings = merge_preprocess_dict(PreprocessCfg(), dict(origin.preprocess))
    image_size = getattr(model.visual, "image_size", settings["size"])
    height, width = image_size if isinstance(image_size, list | tuple) else (image_size,) * 2
    if resize == "auto":
        resize = "qt-aft" if checkpoint.layout is Layout.QT_AFT else "open-clip"
    mean, std = (tuple(float(v) for v in settings[key]) for key in ("mean", "std"))
    if resize == "qt-aft":
        # transforms.Resize(256), CenterCrop(224), torchvision's default filter: futakw/QTAFT,
        # train_qtaft.py and dataloader.py. Other sizes in the same proportion.
        preprocess = PreprocessConfig(
            image_size=(height, width),
            resize_size=round(min(height, width) * 256 / 224),
            interpolation="bilinear",
        )
        return preprocess, _triple(mean), _triple(std)
    fill = int(settings["fill_color"])
    if settings["interpolation"] not in ("bicubic", "bilinear"):
        raise ExportError(
            f"the interpolation {settings['interpolation']!r} has no equivalent in a bundle",
            hint="bundles know bicubic and bilinear",
        )
    resize_size = origin.preprocess.get("resize_size")
    preprocess = PreprocessConfig(
        image_size=(height, width),
        resize_mode=settings["resize_mode"],
        resize_size=None if resize_size == min(height, width) else resize_size,
        interpolation=settings["interpolation"],
        fill_color=(fill, fill, fill),
    )
    return preprocess, _triple(mean), _triple(std)


def _triple(values: tuple[float, ...]) -> tuple[float, float, float]:
    red, green, blue = values
    return red, green, blue


def _source_record(
    origin: Origin,
    checkpoint: Checkpoint,
    base: Origin | None,
    base_file: Checkpoint | None,
    *,
    quick_gelu: bool,
) -> SourceRecord:
    parts = [f"{checkpoint.name} ({checkpoint.layout.value})"]
    if base is not None and base_file is not None:
        rest = base.pretrained or f"{base_file.name}, sha256 {base_file.sha256}"
        parts.append(f"everything but the image tower from {rest}")
    parts.append("QuickGELU" if quick_gelu else "exact GELU")
    return SourceRecord(
        description=", ".join(parts),
        architecture=origin.architecture,
        pretrained=origin.pretrained,
        sha256=checkpoint.sha256,
    )
