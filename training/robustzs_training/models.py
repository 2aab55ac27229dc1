"""open_clip models: built from a configuration, or loaded from a bundle that carries weights.

The one torch adapter of the house: training, attacks, white-box evaluation and export start here.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from robustzs.errors import BundleManifestError, BundleWeightsMissingError, ExportError
from robustzs.images.config import PreprocessConfig
from robustzs_training.backbones import BACKBONE_PREFIX, find_backbone, locate_backbone
from robustzs_training.noise import quiet_libraries

if TYPE_CHECKING:
    from robustzs.bundle.store import Bundle
    from robustzs.tokenizer import Tokenizer

_TOWER_PATHS = ("hf_model_name", "hf_tokenizer_name")


@dataclass(frozen=True, kw_only=True)
class LoadedModel:
    """A torch model and what stands around it.

    Attributes:
        model: open_clip model: float32, on the CPU, in evaluation mode, every parameter trainable.
        config: Its open_clip ``model_cfg``, portable: a backbone stands as ``backbone:NAME``.
        preprocess: How an image becomes ``pixels``.
        mean: Of the normalisation that the model expects, per channel, for pixels in [0, 1].
        std: Likewise.
        tokenizer: Turns prompts into ``token_ids``.
    """

    model: nn.Module
    config: dict[str, Any]
    preprocess: PreprocessConfig
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    tokenizer: Tokenizer


def build_model(config: Mapping[str, Any]) -> nn.Module:
    """Build an open_clip model from its ``model_cfg``, float32, on the CPU, in evaluation mode.

    ``backbone:NAME`` as the text tower's name becomes the folder of the installed backbone, whose
    weights are loaded; everything else starts at random.

    Raises:
        MissingExtraError: a backbone's package is not installed.
        ExportError: open_clip refuses the configuration.
    """
    from open_clip.coca_model import CoCa
    from open_clip.model import CLIP, CustomTextCLIP

    settings = with_absolute_paths(config)
    custom_text = settings.pop("custom_text", False) or "hf_model_name" in settings["text_cfg"]
    model_class: type[nn.Module] = CustomTextCLIP if custom_text else CLIP
    if "multimodal_cfg" in settings:
        model_class = CoCa
    try:
        with quiet_libraries():
            model = model_class(**settings)
    except (TypeError, ValueError, KeyError, OSError, RuntimeError) as error:
        raise ExportError(
            f"open_clip cannot build this configuration: {error}",
            hint="compare its keys with those of a model that open_clip lists",
        ) from error
    return model.float().eval()


def with_absolute_paths(config: Mapping[str, Any]) -> dict[str, Any]:
    """Copy ``model_cfg`` with every ``backbone:NAME`` replaced by the installed folder."""
    settings = copy.deepcopy(dict(config))
    for key in _TOWER_PATHS:
        value = settings["text_cfg"].get(key)
        if isinstance(value, str) and value.startswith(BACKBONE_PREFIX):
            path = find_backbone(value.removeprefix(BACKBONE_PREFIX)).path
            settings["text_cfg"][key] = str(path)
    return settings


def load_tensors(
    model: nn.Module, tensors: Mapping[str, torch.Tensor], *, frozen: Iterable[str] = ()
) -> None:
    """Copy ``tensors`` into ``model`` by name; nothing may be missing, left over or misshapen.

    Args:
        model: The model; its dtype stays.
        tensors: Keys of ``model.state_dict()``.
        frozen: Prefixes of parameters that may be missing: they keep what the model holds.

    Raises:
        ExportError: names every missing, unexpected or misshapen key (the first ten of each).
    """
    expected = model.state_dict()
    prefixes = tuple(frozen)
    missing = [key for key in expected if key not in tensors and not key.startswith(prefixes)]
    unexpected = [key for key in tensors if key not in expected]
    shapes = [
        f"{key}: {list(tensor.shape)}, the architecture has {list(expected[key].shape)}"
        for key, tensor in tensors.items()
        if key in expected and tensor.shape != expected[key].shape
    ]
    problems = [
        f"{title}: {_first(keys)}"
        for title, keys in (
            ("missing", missing),
            ("unexpected", unexpected),
            ("of another shape", shapes),
        )
        if keys
    ]
    if problems:
        raise ExportError(
            f"the weights do not fit the architecture; {'; '.join(problems)}",
            hint="name the architecture that the weights were trained with",
        )
    model.load_state_dict(dict(tensors), strict=False)


def _first(keys: list[str], count: int = 10) -> str:
    more = f", and {len(keys) - count} more" if len(keys) > count else ""
    return ", ".join(keys[:count]) + more


def load_bundle_model(bundle: Bundle) -> LoadedModel:
    """Load the torch model of a bundle that carries its weights.

    Raises:
        BundleWeightsMissingError: the bundle has no weights or no open_clip configuration.
        BundleManifestError: its configuration or weights cannot be read.
        BundleDigestError: the installed backbone is not the one that the bundle was made with.
        MissingExtraError: a backbone's package is not installed.
        ExportError: weights and configuration do not fit each other.
    """
    from robustzs.tokenizer import Tokenizer

    manifest = bundle.manifest
    if manifest.weights is None or manifest.open_clip_config is None:
        raise BundleWeightsMissingError(
            f"bundle {manifest.name!r} carries no weights: it classifies, but torch cannot load it",
            hint="export its checkpoint again with `robustzs export --weights`",
        )
    for record in manifest.backbones:
        locate_backbone(record)
    config = read_model_config(bundle.file(manifest.open_clip_config))
    model = build_model(config)
    try:
        tensors = load_file(bundle.file(manifest.weights))
    except SafetensorError as error:
        raise BundleManifestError(
            f"{manifest.weights}: {error}", hint="fetch the bundle again"
        ) from error
    load_tensors(model, tensors, frozen=[record.prefix for record in manifest.backbones])
    return LoadedModel(
        model=model,
        config=config,
        preprocess=manifest.preprocess,
        mean=manifest.mean,
        std=manifest.std,
        tokenizer=Tokenizer.from_bundle(bundle),
    )


def read_model_config(path: Path) -> dict[str, Any]:
    """Read ``model_cfg`` from an ``open_clip_config.json``.

    Raises:
        BundleManifestError: not JSON, or without the keys of a model.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BundleManifestError(
            f"{path}: {error}", hint="it must be an open_clip configuration in JSON"
        ) from error
    config = document.get("model_cfg", document) if isinstance(document, dict) else None
    if not isinstance(config, dict) or not {"embed_dim", "vision_cfg", "text_cfg"} <= set(config):
        raise BundleManifestError(
            f"{path} is no open_clip configuration",
            hint="it needs model_cfg with embed_dim, vision_cfg and text_cfg",
        )
    return config
