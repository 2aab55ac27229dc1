"""Back to the libraries that torch users know: open_clip and Hugging Face transformers.

What is written is loaded again by that library and has to give the same features, within 1e-5,
before the folder takes its place.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from robustzs.errors import (
    BundleExistsError,
    BundleWriteError,
    ExportError,
    ExportParityError,
)
from robustzs_training.backbones import BACKBONE_PREFIX
from robustzs_training.export.bundle import OPEN_CLIP_CONFIG, PROBE_PROMPTS, open_clip_config_text
from robustzs_training.export.hf_clip import (
    END_ID,
    START_ID,
    config_to_hugging_face,
    to_hugging_face,
)
from robustzs_training.export.parity import TOLERANCE, probe_pixels
from robustzs_training.export.sources import SourceModel
from robustzs_training.export.towers import Normalize
from robustzs_training.models import with_absolute_paths
from robustzs_training.noise import quiet_libraries

OPEN_CLIP_WEIGHTS = "open_clip_model.safetensors"
_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.txt",
)
Features = tuple[torch.Tensor, torch.Tensor]


def write_open_clip(source: SourceModel, output: Path, *, force: bool = False) -> list[str]:
    """Write a folder for ``open_clip.create_model_and_transforms("local-dir:FOLDER")``.

    A Hugging Face text tower's configuration and tokenizer are copied into the folder, and
    ``hf_model_name`` is the folder's absolute path, since open_clip takes no relative one.

    Returns:
        Notes for the user.

    Raises:
        BundleExistsError: the output holds something that ``force`` does not allow to replace.
        ExportParityError: open_clip gives other features from what was written.
        BundleWriteError: the folder cannot be written.
    """
    with _new_folder(output, force=force, marker=OPEN_CLIP_CONFIG) as folder:
        config = _portable_config(source, folder, folder)
        _write_config(source, config, folder)
        tensors = {key: tensor.contiguous() for key, tensor in source.model.state_dict().items()}
        save_file(_unshared(tensors), folder / OPEN_CLIP_WEIGHTS)
        _require_same(source, lambda pixels, ids: _open_clip_features(folder, pixels, ids))
        _write_config(source, _portable_config(source, folder, output.resolve()), folder)
    notes = []
    if "hf_model_name" in source.config["text_cfg"]:
        notes.append(f"{OPEN_CLIP_CONFIG} names this folder; change it there if you move it")
    if source.preprocess.resize_size is not None:
        notes.append(
            f"open_clip cannot say Resize({source.preprocess.resize_size}) before the crop: "
            "preprocess images yourself, or accuracy differs"
        )
    return notes


def write_hugging_face(source: SourceModel, output: Path, *, force: bool = False) -> list[str]:
    """Write a folder for ``transformers.CLIPModel.from_pretrained`` and ``CLIPProcessor``.

    Returns:
        Notes for the user.

    Raises:
        ExportError: ``CLIPModel`` cannot express the architecture.
        BundleExistsError: the output holds something that ``force`` does not allow to replace.
        ExportParityError: transformers gives other features from what was written.
        BundleWriteError: the folder cannot be written.
    """
    from transformers import CLIPConfig, CLIPModel

    settings = config_to_hugging_face(source.config)
    tensors = to_hugging_face(source.model.state_dict())
    if source.tokenizer.config.kind != "clip-bpe":
        raise ExportError(
            f"transformers' CLIPModel has no {source.tokenizer.config.kind} tokenizer",
            hint="use `--to open-clip`",
        )
    with _new_folder(output, force=force, marker="config.json") as folder:
        with quiet_libraries():
            model = CLIPModel(CLIPConfig(**settings)).eval()
            model.load_state_dict(tensors, strict=True)
            model.save_pretrained(folder)
        _write_processor(source, folder)
        _require_same(source, lambda pixels, ids: _hugging_face_features(folder, pixels, ids))
    return []


def _write_config(source: SourceModel, config: dict[str, Any], folder: Path) -> None:
    text = open_clip_config_text(config, source.preprocess, source)
    (folder / OPEN_CLIP_CONFIG).write_text(text, encoding="utf-8")


def _portable_config(source: SourceModel, folder: Path, named: Path) -> dict[str, Any]:
    """The configuration with a Hugging Face text tower's files copied into ``folder``."""
    config = with_absolute_paths(source.config)
    text = config["text_cfg"]
    for key in ("hf_model_name", "hf_tokenizer_name"):
        original = source.config["text_cfg"].get(key)
        if isinstance(original, str) and (
            original.startswith(BACKBONE_PREFIX) or Path(original).is_dir()
        ):
            for name in ("config.json", *_TOKENIZER_FILES):
                if (Path(text[key]) / name).is_file():
                    shutil.copyfile(Path(text[key]) / name, folder / name)
            text[key] = str(named)
    return config


def _open_clip_features(folder: Path, pixels: torch.Tensor, ids: torch.Tensor) -> Features:
    import open_clip

    with quiet_libraries():
        model, _, _ = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    model.eval()
    return model.encode_image(pixels), model.encode_text(ids)


def _hugging_face_features(folder: Path, pixels: torch.Tensor, ids: torch.Tensor) -> Features:
    from transformers import CLIPModel

    with quiet_libraries():
        model = CLIPModel.from_pretrained(folder, attn_implementation="eager").eval()
    image = model.visual_projection(model.vision_model(pixel_values=pixels).pooler_output)
    text = model.text_projection(model.text_model(input_ids=ids).pooler_output)
    return image, text


def _require_same(
    source: SourceModel, encode: Callable[[torch.Tensor, torch.Tensor], Features]
) -> None:
    pixels = torch.from_numpy(probe_pixels(source.preprocess.image_size))
    ids = torch.from_numpy(source.tokenizer.reference(PROBE_PROMPTS).astype(np.int64))
    with torch.no_grad():
        normalised = Normalize(source.mean, source.std)(pixels)
        expected = (
            source.model.encode_image(normalised),  # type: ignore[operator]
            source.model.encode_text(ids),  # type: ignore[operator]
        )
        found = encode(normalised, ids)
    for name, ours, theirs in zip(("image", "text"), expected, found, strict=True):
        difference = float((ours - theirs).abs().max() / ours.abs().max())
        if not difference <= TOLERANCE:
            raise ExportParityError(
                f"the {name} features of what was written differ by {difference:.2e}, allowed is "
                f"{TOLERANCE:.0e}",
                hint="nothing was written; report the architecture",
            )


def _write_processor(source: SourceModel, folder: Path) -> None:
    """Files of ``CLIPProcessor``: how images are prepared, and CLIP's vocabulary."""
    height, width = source.preprocess.image_size
    image = {
        "image_processor_type": "CLIPImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"shortest_edge": source.preprocess.resize_size or min(height, width)},
        "resample": {"bilinear": 2, "bicubic": 3}[source.preprocess.interpolation],
        "do_center_crop": True,
        "crop_size": {"height": height, "width": width},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(source.mean),
        "image_std": list(source.std),
    }
    if source.preprocess.resize_mode != "shortest":
        raise ExportError(
            f"CLIPImageProcessor has no resize like {source.preprocess.resize_mode!r}",
            hint="use `--to open-clip`",
        )
    (folder / "preprocessor_config.json").write_text(_json(image), encoding="utf-8")
    # transformers calls CLIP's special tokens by other names.
    model = json.loads(source.tokenizer.content)["model"]
    vocabulary = {word: index for word, index in model["vocab"].items() if index < START_ID}
    vocabulary |= {"<|startoftext|>": START_ID, "<|endoftext|>": END_ID}
    merges = "\n".join(" ".join(pair) for pair in model["merges"])
    (folder / "vocab.json").write_text(_json(vocabulary), encoding="utf-8")
    (folder / "merges.txt").write_text(f"#version: 0.2\n{merges}\n", encoding="utf-8")
    settings = {
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": source.tokenizer.config.context_length,
        "bos_token": "<|startoftext|>",
        "eos_token": "<|endoftext|>",
        "unk_token": "<|endoftext|>",
        "pad_token": "<|endoftext|>",
    }
    (folder / "tokenizer_config.json").write_text(_json(settings), encoding="utf-8")


def _json(document: dict[str, Any]) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def _unshared(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    # safetensors refuses tensors that share memory.
    return {key: tensor.detach().clone() for key, tensor in sorted(tensors.items())}


@contextmanager
def _new_folder(output: Path, *, force: bool, marker: str) -> Iterator[Path]:
    """Write into a hidden folder beside ``output``, which takes its place if all goes well."""
    output = Path(os.path.abspath(output))
    occupied = output.exists() and (not output.is_dir() or any(output.iterdir()))
    if occupied and not force:
        raise BundleExistsError(f"{output} already holds something", hint="name a new folder")
    if occupied and not (output / marker).is_file():
        raise BundleExistsError(
            f"{output} holds something else than such a model; it will not be replaced",
            hint="name a new folder",
        )
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{output.name}.partial-", dir=output.parent))
    except OSError as error:
        raise BundleWriteError(f"{output} cannot be written: {error.strerror}") from error
    try:
        yield folder
        folder.chmod(0o755)
        if occupied:
            shutil.rmtree(output)
        folder.replace(output)
    except OSError as error:
        raise BundleWriteError(f"{output} cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
