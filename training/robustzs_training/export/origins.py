"""Where a model's configuration and weights come from: what the words on the command line mean."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from robustzs.errors import ExportError, UsageError
from robustzs_training.export.hf_clip import config_from_hugging_face
from robustzs_training.models import read_model_config
from robustzs_training.noise import quiet_libraries

HUB_PREFIX = "hf-hub:"
_QUICK_SUFFIX = "-quickgelu"
_WEIGHT_NAMES = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "model.safetensors",
    "open_clip_pytorch_model.bin",
    "pytorch_model.bin",
)


@dataclass(frozen=True, kw_only=True)
class Origin:
    """An architecture and, where named, its weights.

    Attributes:
        architecture: For the record.
        config: open_clip ``model_cfg``.
        preprocess: open_clip ``preprocess_cfg``, as far as the origin says, and ``resize_size``
            where the resize is to another size than the crop.
        weights: File to read.
        pretrained: Tag or hub name, for the record.
        tag_quick_gelu: What open_clip's list says of the tag's activation; None: nothing.
    """

    architecture: str
    config: dict[str, Any]
    preprocess: Mapping[str, Any] = field(default_factory=dict)
    weights: Path | None = None
    pretrained: str | None = None
    tag_quick_gelu: bool | None = None


def find_origin(model: str, pretrained: str | None) -> Origin:
    """Find what ``robustzs export MODEL --pretrained ...`` names.

    Args:
        model: An open_clip architecture, ``hf-hub:NAME``, an open_clip configuration (``*.json``),
            or a folder with ``open_clip_config.json`` or a ``CLIPModel``.
        pretrained: A tag of open_clip, ``hf-hub:NAME`` or a checkpoint file; a hub repository or
            folder brings its own weights.

    Raises:
        UsageError: nothing of that name, or no weights named.
        ExportError: the hub cannot be reached, or its files are not as expected.
    """
    for name in (model, pretrained or ""):
        if name.startswith(HUB_PREFIX):
            return _hub_origin(name.removeprefix(HUB_PREFIX))
    folder = Path(model.removeprefix("local-dir:"))
    if folder.is_dir():
        origin = _folder_origin(folder)
    elif folder.suffix == ".json" and folder.is_file():
        origin = Origin(architecture=folder.stem, config=read_model_config(folder))
    else:
        origin = Origin(architecture=model, config=architecture_config(model))
    if pretrained is None:
        if origin.weights is None:
            raise UsageError(
                f"no weights are named for {model!r}",
                hint="give --pretrained TAG, hf-hub:NAME or a checkpoint file",
            )
        return origin
    return _with_weights(origin, pretrained, replaced=origin.weights)


def _with_weights(origin: Origin, pretrained: str, *, replaced: Path | None) -> Origin:
    tag = tag_weights(origin.architecture, pretrained)
    if tag is not None:
        return Origin(
            architecture=origin.architecture,
            config=origin.config,
            preprocess=tag.preprocess,
            weights=tag.weights,
            pretrained=pretrained,
            tag_quick_gelu=tag.tag_quick_gelu,
        )
    path = Path(pretrained)
    if not path.is_file():
        raise UsageError(
            f"{pretrained!r} is neither a file nor a tag of {origin.architecture}",
            hint=_tags_hint(origin.architecture),
        )
    return Origin(
        architecture=origin.architecture,
        config=origin.config,
        preprocess=origin.preprocess,
        weights=path,
    )


def architecture_config(name: str) -> dict[str, Any]:
    """``model_cfg`` of an architecture that open_clip knows.

    Raises:
        UsageError: it knows none of that name; the message offers similar ones.
    """
    import difflib

    import open_clip

    config = open_clip.get_model_config(name)
    if config is None:
        close = difflib.get_close_matches(name, open_clip.list_models(), n=4, cutoff=0.4)
        offer = f"did you mean {', '.join(close)}? " if close else ""
        raise UsageError(
            f"{name!r} is no architecture of open_clip, no bundle and no folder",
            hint=f"{offer}open_clip.list_models() lists them",
        )
    return dict(config)


def tag_weights(architecture: str, tag: str) -> Origin | None:
    """The weights of a pre-trained tag, fetched; None when open_clip lists no such tag.

    Raises:
        ExportError: they cannot be fetched.
    """
    from open_clip.pretrained import download_pretrained, get_pretrained_cfg

    plain = architecture.removesuffix(_QUICK_SUFFIX)
    entry = get_pretrained_cfg(architecture, tag) or get_pretrained_cfg(plain, tag)
    if not entry:
        return None
    try:
        with quiet_libraries():
            weights = Path(download_pretrained(entry))
    except Exception as error:  # whatever the hub's client raises without a network
        raise ExportError(
            f"the weights {tag!r} of {architecture} cannot be fetched: {_first_line(error)}",
            hint="with no network, give a checkpoint file by --pretrained FILE or --base FILE",
        ) from error
    # Only where both spellings exist does a missing mark mean the exact GELU.
    has_twin = architecture != plain or bool(_config_or_none(plain + _QUICK_SUFFIX))
    return Origin(
        architecture=architecture,
        config={},
        preprocess=entry,
        weights=weights,
        pretrained=tag,
        tag_quick_gelu=True if entry.get("quick_gelu") else False if has_twin else None,
    )


def _config_or_none(name: str) -> Any:
    import open_clip

    return open_clip.get_model_config(name)


def _hub_origin(name: str) -> Origin:
    from open_clip.pretrained import download_pretrained_from_hf

    try:
        with quiet_libraries():
            settings = Path(download_pretrained_from_hf(name, filename="open_clip_config.json"))
            weights = Path(download_pretrained_from_hf(name))
    except Exception as error:  # whatever the hub's client raises without a network
        raise ExportError(
            f"{HUB_PREFIX}{name} cannot be fetched: {_first_line(error)}",
            hint="the repository needs open_clip_config.json and weights; with no network, give "
            "a folder or file",
        ) from error
    return Origin(
        architecture=f"{HUB_PREFIX}{name}",
        config=read_model_config(settings),
        preprocess=_preprocess_settings(settings),
        weights=weights,
        pretrained=f"{HUB_PREFIX}{name}",
    )


def _folder_origin(folder: Path) -> Origin:
    weights = next((folder / name for name in _WEIGHT_NAMES if (folder / name).is_file()), None)
    settings = folder / "open_clip_config.json"
    if settings.is_file():
        return Origin(
            architecture=folder.name,
            config=read_model_config(settings),
            preprocess=_preprocess_settings(settings),
            weights=weights,
        )
    if (folder / "config.json").is_file():
        document = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        if document.get("model_type") == "clip":
            return Origin(
                architecture=folder.name,
                config=config_from_hugging_face(document),
                preprocess=_hugging_face_preprocess(folder),
                weights=weights,
                # config.json says the activation, and CLIPConfig's default is QuickGELU.
                tag_quick_gelu=config_from_hugging_face(document)["quick_gelu"],
            )
    raise UsageError(
        f"the folder {str(folder)!r} holds no model",
        hint="it needs bundle.json, open_clip_config.json or the config.json of a CLIPModel",
    )


def _preprocess_settings(path: Path) -> Mapping[str, Any]:
    document = json.loads(path.read_text(encoding="utf-8"))
    settings: Mapping[str, Any] = document.get("preprocess_cfg", {})
    return settings


def _hugging_face_preprocess(folder: Path) -> Mapping[str, Any]:
    path = folder / "preprocessor_config.json"
    if not path.is_file():
        return {}
    document = json.loads(path.read_text(encoding="utf-8"))
    names = {2: "bilinear", 3: "bicubic"}  # PIL's numbers
    size = document.get("size")
    size = {"shortest_edge": size} if isinstance(size, int) else size or {}
    known = {
        "mean": document.get("image_mean"),
        "std": document.get("image_std"),
        "interpolation": names.get(document.get("resample", 3)),
        "resize_size": size.get("shortest_edge"),
        "resize_mode": "squash" if "height" in size else None,
    }
    return {key: value for key, value in known.items() if value is not None}


def _tags_hint(architecture: str) -> str:
    from open_clip.pretrained import list_pretrained_tags_by_model

    tags = list_pretrained_tags_by_model(architecture.removesuffix(_QUICK_SUFFIX))
    return (
        f"its tags are {', '.join(tags)}" if tags else "open_clip lists no tags for it: give a file"
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).split("\n")[0][:200]
