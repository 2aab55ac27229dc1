"""Captions from a real model of InternVL's architecture in transformers, tiny and untrained."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from robustzs_training.captions.local import LocalCaptioner

from robustzs.errors import CaptionError
from tests.training.captions.tiny_internvl import save_tiny_internvl

PHOTOS = Path(__file__).parents[3] / "examples" / "photos"
KEYS = ["chelsea.png", "coffee.jpg", "rocket.jpg"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_internvl(tmp_path_factory.mktemp("internvl"))


def _captions(model: Path, batch_size: int) -> dict[str, str | None]:
    captioner = LocalCaptioner.load(
        PHOTOS, str(model), device="cpu", batch_size=batch_size, max_tokens=12
    )
    groups = list(captioner.caption(KEYS))
    assert [len(group) for group in groups] == ([2, 1] if batch_size == 2 else [1, 1, 1])
    return {outcome.key: outcome.caption for group in groups for outcome in group}


def test_captions_come_from_the_image_and_not_from_the_batch(model: Path) -> None:
    one_by_one = _captions(model, 1)
    assert list(one_by_one) == KEYS
    assert all(one_by_one.values())
    assert len(set(one_by_one.values())) > 1
    assert _captions(model, 2) == one_by_one


def test_half_precision_reaches_the_pixels(model: Path) -> None:
    captioner = LocalCaptioner.load(
        PHOTOS, str(model), device="cpu", dtype="bfloat16", max_tokens=4
    )
    (group,) = captioner.caption(KEYS[:1])
    assert captioner.model.dtype == torch.bfloat16
    assert group[0].caption
    assert 1 <= group[0].completion_tokens <= 4
    assert group[0].prompt_tokens > 10


def test_the_model_is_asked_the_papers_question(model: Path) -> None:
    captioner = LocalCaptioner.load(PHOTOS, str(model), device="cpu")
    assert "Describe the image in detail within 50 words." in captioner._question
    assert captioner._question.count("<IMG_CONTEXT>") == 1
    assert captioner._question.endswith("<|im_start|>assistant ")
    assert captioner.settings["model"] == str(model)


def test_bad_images_do_not_stop_the_others(model: Path) -> None:
    captioner = LocalCaptioner.load(PHOTOS, str(model), device="cpu", max_tokens=3)
    (group,) = captioner.caption(["gone.png", "README.md", "rocket.jpg"])
    assert {outcome.key: outcome.error for outcome in group} == {
        "gone.png": "image-source",
        "README.md": "image-format",
        "rocket.jpg": "",
    }


def test_too_little_memory_halves_the_batch(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    captioner = LocalCaptioner.load(PHOTOS, str(model), device="cpu", batch_size=3, max_tokens=12)
    generate = captioner.model.generate

    def small_device(**inputs: torch.Tensor) -> torch.Tensor:
        if len(inputs["input_ids"]) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return generate(**inputs)

    monkeypatch.setattr(captioner.model, "generate", small_device)
    (group,) = captioner.caption(KEYS)
    assert {outcome.key: outcome.caption for outcome in group} == _captions(model, 1)
    assert captioner.batch_size == 1


def test_code_of_a_model_is_never_run(model: Path, tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    (tmp_path / "configuration_evil.py").write_text(
        f"open({str(marker)!r}, 'w').close()\nclass EvilConfig: pass\n"
    )
    config = {"model_type": "internvl_chat", "auto_map": {}}
    for name in ("AutoConfig", "AutoModelForImageTextToText"):
        config["auto_map"][name] = "configuration_evil.EvilConfig"  # type: ignore[index]
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CaptionError) as caught:
        LocalCaptioner.load(PHOTOS, str(tmp_path), device="cpu")
    assert "InternVL2_5-8B-MPO-hf" in caught.value.hint
    assert not marker.exists()


def test_pickled_weights_are_refused(model: Path, tmp_path: Path) -> None:
    for path in model.iterdir():
        if path.suffix != ".safetensors":
            (tmp_path / path.name).write_bytes(path.read_bytes())
    torch.save({"x": torch.zeros(1)}, tmp_path / "pytorch_model.bin")
    with pytest.raises(CaptionError, match="safetensors"):
        LocalCaptioner.load(PHOTOS, str(tmp_path), device="cpu")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"device": "cuda:99"}, "device"),
        ({"device": "nonsense"}, "device"),
        ({"dtype": "float8"}, "dtype"),
    ],
)
def test_what_is_not_there_is_told(model: Path, changes: dict[str, str], message: str) -> None:
    with pytest.raises(CaptionError, match=message):
        LocalCaptioner.load(PHOTOS, str(model), **{"device": "cpu", **changes})
