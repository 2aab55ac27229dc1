"""Checkpoint files as the field publishes them, recognised by their keys and read without code.

| layout | published by | recognised by |
|---|---|---|
| `OPEN_CLIP` | open_clip, LAION, this project | ``visual.*`` beside text keys |
| `OPENAI` | OpenAI | the same, with ``input_resolution``, ``context_length``, ``vocab_size`` |
| `VISUAL` | FARE, TeCoA, Sim-CLIP (RobustVLM) | ``model.visual`` alone: ``conv1.weight``, ... |
| `QT_AFT` | QT-AFT and others after TeCoA's code | ``vision_encoder_state_dict`` |
| `HUGGING_FACE` | ``transformers.CLIPModel`` | ``text_model.*``, ``vision_model.*`` |

Files are safetensors or are read by ``torch.load(weights_only=True)``, which builds tensors and
plain containers and runs nothing; whatever needs more is refused with the reason.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from robustzs.errors import CheckpointFormatError
from robustzs_training.backbones import file_digest
from robustzs_training.noise import quiet_libraries

_WRAPPERS = ("state_dict", "model_state_dict", "model")
_PREFIXES = ("module.", "_orig_mod.", "model.")
_OPENAI_SCALARS = frozenset({"input_resolution", "context_length", "vocab_size"})
_REFUSED_GLOBAL = re.compile(r"GLOBAL ([\w.]+)")
_REASON = re.compile(r"WeightsUnpickler error:\s+(\S.*)")
_SAFE_REMEDY = (
    "where you trust the file, open it once with its own code and save the tensors: "
    "safetensors.torch.save_file(model.state_dict(), 'weights.safetensors')"
)


class Layout(Enum):
    """What a checkpoint file holds, and under which names."""

    OPEN_CLIP = "open_clip state dict"
    OPENAI = "OpenAI state dict"
    VISUAL = "visual encoder state dict"
    QT_AFT = "vision_encoder_state_dict"
    HUGGING_FACE = "Hugging Face CLIPModel"

    @property
    def is_whole(self) -> bool:
        """Whether both towers are in it."""
        return self not in {Layout.VISUAL, Layout.QT_AFT}


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A checkpoint file that was read.

    Attributes:
        name: Of the file, without its folder.
        layout: What it holds.
        tensors: Under the names that ``layout`` says, wrappers and prefixes taken off.
        sha256: Of the file.
    """

    name: str
    layout: Layout
    tensors: dict[str, torch.Tensor]
    sha256: str

    @property
    def is_mixed_precision(self) -> bool:
        """Whether norms are float32 and the rest float16, as OpenAI's own files are."""
        dtypes = {tensor.dtype for tensor in self.tensors.values() if tensor.is_floating_point()}
        return dtypes == {torch.float16, torch.float32}


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint file and recognise its layout.

    Raises:
        CheckpointFormatError: it cannot be read, would need code to be read, or its keys are those
            of no known layout.
    """
    layout, tensors = recognise(_read(path), path.name)
    return Checkpoint(name=path.name, layout=layout, tensors=tensors, sha256=file_digest(path))


def recognise(document: Any, name: str) -> tuple[Layout, dict[str, torch.Tensor]]:
    """Find the layout of what a checkpoint file holds.

    Args:
        document: What reading the file gave.
        name: Of the file, for messages.

    Raises:
        CheckpointFormatError: it is none of the known layouts.
    """
    content = document
    if isinstance(content, Mapping) and "vision_encoder_state_dict" in content:
        return Layout.QT_AFT, _tensors(content["vision_encoder_state_dict"], name)
    for wrapper in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
            break
    tensors = _tensors(content, name)
    scalars = _OPENAI_SCALARS & set(tensors)
    tensors = {key: value for key, value in tensors.items() if key not in scalars}
    if all(key.startswith("visual.") for key in tensors):
        tensors = {key.removeprefix("visual."): value for key, value in tensors.items()}
    layout = _layout_of(tensors)
    if layout is None:
        raise CheckpointFormatError(
            f"{name} holds no layout that is known; its first keys are "
            f"{', '.join(sorted(tensors)[:5])}",
            hint="known are state dicts of open_clip, OpenAI's CLIP, FARE/TeCoA, QT-AFT and "
            "transformers' CLIPModel",
        )
    if layout is Layout.OPEN_CLIP and scalars:
        layout = Layout.OPENAI
    return layout, tensors


def _layout_of(tensors: Mapping[str, torch.Tensor]) -> Layout | None:
    keys = set(tensors)
    has_text = "token_embedding.weight" in keys or any(key.startswith("text.") for key in keys)
    if has_text and any(key.startswith("visual.") for key in keys):
        return Layout.OPEN_CLIP
    if {
        "vision_model.embeddings.class_embedding",
        "text_model.embeddings.token_embedding.weight",
    } <= keys:
        return Layout.HUGGING_FACE
    if {"conv1.weight", "class_embedding"} <= keys or {
        "layer1.0.conv1.weight",
        "attnpool.positional_embedding",
    } <= keys:
        return Layout.VISUAL
    if any(key.startswith("trunk.") for key in keys) and not has_text:
        return Layout.VISUAL
    return None


def _tensors(content: Any, name: str) -> dict[str, torch.Tensor]:
    if not isinstance(content, Mapping) or not content:
        raise CheckpointFormatError(
            f"{name} holds {type(content).__name__} instead of named tensors",
            hint="give a state dict",
        )
    others = [str(key) for key, value in content.items() if not isinstance(value, torch.Tensor)]
    if set(others) - _OPENAI_SCALARS:
        raise CheckpointFormatError(
            f"{name} holds other things than tensors: {', '.join(sorted(others)[:5])}",
            hint="give a state dict, or a dict that has one under 'state_dict'",
        )
    tensors = {
        str(key): value if isinstance(value, torch.Tensor) else torch.tensor(value)
        for key, value in content.items()
    }
    while True:
        prefix = next((p for p in _PREFIXES if all(key.startswith(p) for key in tensors)), None)
        if prefix is None:
            return tensors
        tensors = {key.removeprefix(prefix): value for key, value in tensors.items()}


def _read(path: Path) -> Any:
    if not path.is_file():
        raise CheckpointFormatError(f"there is no file {str(path)!r}", hint="check the path")
    with path.open("rb") as file:
        head = file.read(9)
    if len(head) == 9 and head[8:] == b"{":
        return _read_safetensors(path)
    if zipfile.is_zipfile(path):
        _refuse_torchscript(path)
    return _read_pickle(path)


def _read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointFormatError(
            f"{path.name} is no complete safetensors file: {error}", hint="fetch it again"
        ) from error


def _refuse_torchscript(path: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError) as error:
        raise CheckpointFormatError(
            f"{path.name} is no complete archive: {error}", hint="fetch it again"
        ) from error
    if any(name.endswith("constants.pkl") for name in names):
        raise CheckpointFormatError(
            f"{path.name} is a TorchScript archive: a program, not a state dict, and opening it "
            "would run it",
            hint="for OpenAI's models use `--pretrained openai`, which are safetensors; "
            "for others save torch.jit.load(file).state_dict() where you trust the file",
        )


def _read_pickle(path: Path) -> Any:
    try:
        with quiet_libraries(), torch.serialization.safe_globals(_INERT):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a damaged or hostile file makes torch raise
        found = _REFUSED_GLOBAL.search(str(error))
        if found is not None:
            raise CheckpointFormatError(
                f"{path.name} is refused: beyond tensors it would have to run {found.group(1)}",
                hint=_SAFE_REMEDY,
            ) from error
        known = _REASON.search(str(error))
        reason = known.group(1) if known else str(error).split("\n")[0]
        raise CheckpointFormatError(
            f"{path.name} cannot be read as tensors only: {reason[:200]}", hint=_SAFE_REMEDY
        ) from error


class _InertDtype:
    """Takes the place of ``numpy.dtype`` and does nothing."""

    def __init__(self, *arguments: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


def _inert_scalar(*arguments: object) -> None:
    """Take the place of numpy's scalar constructor and give nothing."""


# QT-AFT's and TeCoA's files keep their best accuracy as a numpy scalar beside the weights. Nobody
# needs it, so its constructors are replaced; numpy itself is not called.
_INERT: list[Any] = [
    (_inert_scalar, "numpy.core.multiarray.scalar"),
    (_inert_scalar, "numpy._core.multiarray.scalar"),
    (_InertDtype, "numpy.dtype"),
]
