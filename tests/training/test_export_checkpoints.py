from __future__ import annotations

import argparse
import os
import pickle
import struct
import warnings
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from robustzs_training.export.checkpoints import Layout, read_checkpoint
from safetensors.torch import save_file

from robustzs.errors import CheckpointFormatError

WHOLE = {
    "visual.conv1.weight": torch.ones(4, 3, 2, 2),
    "visual.class_embedding": torch.ones(4),
    "token_embedding.weight": torch.ones(5, 4),
    "positional_embedding": torch.ones(7, 4),
    "logit_scale": torch.tensor(4.6),
}
VISUAL = {"conv1.weight": torch.ones(4, 3, 2, 2), "class_embedding": torch.ones(4)}
RESNET = {"layer1.0.conv1.weight": torch.ones(1), "attnpool.positional_embedding": torch.ones(1)}
HUGGING_FACE = {
    "vision_model.embeddings.class_embedding": torch.ones(4),
    "text_model.embeddings.token_embedding.weight": torch.ones(5, 4),
}
OPENAI = {**WHOLE, "input_resolution": torch.tensor(224), "vocab_size": torch.tensor(5)}


def prefixed(prefix: str, tensors: dict[str, Any]) -> dict[str, Any]:
    return {prefix + key: value for key, value in tensors.items()}


@pytest.mark.parametrize(
    ("document", "layout", "expected"),
    [
        (WHOLE, Layout.OPEN_CLIP, WHOLE),
        ({"epoch": 3, "state_dict": WHOLE, "optimizer": {"lr": 0.1}}, Layout.OPEN_CLIP, WHOLE),
        ({"state_dict": prefixed("module.", WHOLE)}, Layout.OPEN_CLIP, WHOLE),
        (prefixed("module._orig_mod.", WHOLE), Layout.OPEN_CLIP, WHOLE),
        (OPENAI, Layout.OPENAI, WHOLE),
        ({**WHOLE, "input_resolution": 224}, Layout.OPENAI, WHOLE),
        (VISUAL, Layout.VISUAL, VISUAL),
        (RESNET, Layout.VISUAL, RESNET),
        (prefixed("visual.", VISUAL), Layout.VISUAL, VISUAL),
        (OrderedDict(prefixed("module.", VISUAL)), Layout.VISUAL, VISUAL),
        ({"vision_encoder_state_dict": VISUAL, "epoch": 2}, Layout.QT_AFT, VISUAL),
        ({"vision_encoder_state_dict": prefixed("module.", VISUAL)}, Layout.QT_AFT, VISUAL),
        (HUGGING_FACE, Layout.HUGGING_FACE, HUGGING_FACE),
    ],
)
def test_layouts_are_recognised(
    tmp_path: Path, document: Any, layout: Layout, expected: dict[str, Any]
) -> None:
    path = tmp_path / "weights.pt"
    torch.save(document, path)
    checkpoint = read_checkpoint(path)
    assert checkpoint.layout is layout
    assert set(checkpoint.tensors) == set(expected)
    assert all(torch.equal(checkpoint.tensors[key], expected[key]) for key in expected)
    assert len(checkpoint.sha256) == 64


def test_safetensors_are_recognised_whatever_the_suffix(tmp_path: Path) -> None:
    path = tmp_path / "weights.bin"
    save_file(VISUAL, path)
    assert read_checkpoint(path).layout is Layout.VISUAL


def test_numbers_of_numpy_beside_the_weights_are_ignored(tmp_path: Path) -> None:
    path = tmp_path / "qtaft.pth.tar"
    scalars = {"best_acc1": np.float64(61.2), "loss": np.mean(np.ones(3, np.float32))}
    torch.save({"vision_encoder_state_dict": VISUAL, **scalars, "epoch": 2}, path)
    checkpoint = read_checkpoint(path)
    assert checkpoint.layout is Layout.QT_AFT
    assert set(checkpoint.tensors) == set(VISUAL)


class Malicious:
    """Unpickling it would create a file."""

    def __init__(self, victim: Path) -> None:
        self.victim = victim

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.victim),)


@pytest.mark.parametrize("form", ["zip", "legacy", "pickle"])
def test_a_malicious_pickle_is_refused_and_does_not_run(tmp_path: Path, form: str) -> None:
    path, victim = tmp_path / "evil.pt", tmp_path / "victim"
    document = {"state_dict": WHOLE, "extra": Malicious(victim)}
    if form == "pickle":
        path.write_bytes(pickle.dumps({"extra": Malicious(victim)}, protocol=2))
    else:
        torch.save(document, path, _use_new_zipfile_serialization=form == "zip")
    with pytest.raises(CheckpointFormatError) as caught:
        read_checkpoint(path)
    assert not victim.exists()
    assert "evil.pt" in caught.value.message
    assert "mkdir" in caught.value.message
    assert "safetensors" in caught.value.hint
    # The file is no dud: whoever unpickles it does run it.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if form == "pickle":
            pickle.loads(path.read_bytes())
        else:
            torch.load(path, weights_only=False)
    assert victim.is_dir()


def test_a_file_that_needs_more_than_tensors_names_what(tmp_path: Path) -> None:
    path = tmp_path / "run.pt"
    torch.save({"state_dict": WHOLE, "args": argparse.Namespace(lr=1.0)}, path)
    with pytest.raises(CheckpointFormatError, match=r"argparse\.Namespace"):
        read_checkpoint(path)


def test_a_torchscript_archive_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ViT-B-32.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), str(path))
    with pytest.raises(CheckpointFormatError, match="TorchScript") as caught:
        read_checkpoint(path)
    assert "--pretrained openai" in caught.value.hint


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"version https://git-lfs.github.com/spec/v1\n",
        b"\x80\x02",
        struct.pack("<Q", 9) + b"{",
    ],
)
def test_damaged_files_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "weights.pt"
    path.write_bytes(content)
    with pytest.raises(CheckpointFormatError, match=r"weights\.pt"):
        read_checkpoint(path)


@pytest.mark.parametrize("share", [0.2, 0.9])
def test_truncated_files_are_refused(tmp_path: Path, share: float) -> None:
    for name in ("a.pt", "a.safetensors"):
        path = tmp_path / name
        if name.endswith(".pt"):
            torch.save(WHOLE, path)
        else:
            save_file(WHOLE, path)
        path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
        with pytest.raises(CheckpointFormatError):
            read_checkpoint(path)


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ([torch.ones(1)], "list"),
        ({}, "named tensors"),
        ({"conv1.weight": [1, 2]}, "conv1.weight"),
        ({"encoder.weight": torch.ones(1)}, r"encoder\.weight"),
        ({"vision_encoder_state_dict": {}}, "named tensors"),
    ],
)
def test_unknown_contents_are_refused(tmp_path: Path, document: Any, message: str) -> None:
    path = tmp_path / "weights.pt"
    torch.save(document, path)
    with pytest.raises(CheckpointFormatError, match=message):
        read_checkpoint(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointFormatError, match="gone"):
        read_checkpoint(tmp_path / "gone.pt")
