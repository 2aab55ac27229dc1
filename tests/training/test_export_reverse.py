from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from robustzs_training.export.hf_clip import (
    config_from_hugging_face,
    config_to_hugging_face,
    from_hugging_face,
    to_hugging_face,
)
from robustzs_training.export.reverse import write_hugging_face, write_open_clip
from robustzs_training.export.sources import SourceModel, SourceRequest, load_source
from robustzs_training.models import build_model
from safetensors.torch import save_file

from robustzs.errors import BundleExistsError, ExportError
from tests.training.tiny_clip import (
    LITE,
    TINY,
    TINY_QUICK,
    fine_tuned,
    make_clip,
    small_bert,
    write_config,
)

PROMPTS = ["a photo of a cat.", "two dogs", "an itap of my Café"]


@pytest.fixture(scope="module", params=[TINY, TINY_QUICK], ids=["gelu", "quickgelu"])
def source(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> SourceModel:
    folder = tmp_path_factory.mktemp("source")
    torch.save(make_clip(request.param).state_dict(), folder / "weights.pt")
    name = write_config(folder, request.param)
    return load_source(SourceRequest(model=name, pretrained=str(folder / "weights.pt")))


def pixels() -> torch.Tensor:
    return torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def assert_same(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    assert ours.shape == theirs.shape
    assert (ours - theirs).abs().max() <= 1e-5 * ours.abs().max()


@torch.no_grad()
def test_open_clip_loads_what_was_written(source: SourceModel, tmp_path: Path) -> None:
    folder = tmp_path / "back"
    assert write_open_clip(source, folder) == []
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    model.eval()
    ids = open_clip.get_tokenizer(f"local-dir:{folder}")(PROMPTS)
    assert_same(source.model.encode_image(pixels()), model.encode_image(pixels()))
    assert_same(source.model.encode_text(ids), model.encode_text(ids))
    assert model.logit_scale == source.model.logit_scale
    assert "Resize(size=32" in str(preprocess)
    assert str(source.mean[0])[:6] in str(preprocess)


@torch.no_grad()
def test_transformers_loads_what_was_written(source: SourceModel, tmp_path: Path) -> None:
    from transformers import CLIPModel, CLIPProcessor

    folder = tmp_path / "hf"
    assert write_hugging_face(source, folder) == []
    model = CLIPModel.from_pretrained(folder).eval()
    processor = CLIPProcessor.from_pretrained(folder)
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8))
    inputs = processor(text=PROMPTS, images=picture, return_tensors="pt", padding=True)
    outputs = model(**inputs)
    transform = open_clip.image_transform(32, is_train=False, mean=source.mean, std=source.std)
    image = source.model.encode_image(transform(picture)[None], normalize=True)
    text = source.model.encode_text(open_clip.tokenize(PROMPTS), normalize=True)
    assert_same(text, outputs.text_embeds)
    # transformers resizes in its own way: the picture differs by less than one grey level.
    assert (image - outputs.image_embeds).abs().max() < 2e-2
    assert_same(
        source.model.encode_image(pixels()),
        model.visual_projection(model.vision_model(pixel_values=pixels()).pooler_output),
    )
    assert model.logit_scale == source.model.logit_scale


@torch.no_grad()
def test_there_and_back_again(source: SourceModel, tmp_path: Path) -> None:
    """open_clip -> transformers -> open_clip -> the same tensors and settings."""
    state = source.model.state_dict()
    back = from_hugging_face(to_hugging_face(state), "test")
    assert set(back) == set(state)
    assert all(torch.equal(back[name], state[name]) for name in state)
    settings = {"model_type": "clip", **config_to_hugging_face(source.config)}
    config = config_from_hugging_face(settings)
    assert config["quick_gelu"] == source.config["quick_gelu"]
    model = build_model(config)
    model.load_state_dict(state)
    assert_same(source.model.encode_image(pixels()), model.encode_image(pixels()))
    folder = tmp_path / "hf"
    write_hugging_face(source, folder)
    again = load_source(SourceRequest(model=str(folder)))
    assert again.mean == pytest.approx(source.mean)
    assert_same(source.model.encode_image(pixels()), again.model.encode_image(pixels()))
    assert not again.notes


def test_a_resize_that_open_clip_cannot_say_is_noted(tmp_path: Path) -> None:
    model = make_clip(TINY_QUICK)
    base, path = tmp_path / "base.pt", tmp_path / "qtaft.pt"
    torch.save(model.state_dict(), base)
    torch.save({"vision_encoder_state_dict": fine_tuned(model)}, path)
    request = SourceRequest(
        model=write_config(tmp_path, TINY_QUICK), pretrained=str(path), base=str(base)
    )
    source = load_source(request)
    assert any("Resize(37)" in note for note in write_open_clip(source, tmp_path / "open"))
    write_hugging_face(source, tmp_path / "hf")
    processor = json.loads((tmp_path / "hf" / "preprocessor_config.json").read_text())
    assert processor["size"] == {"shortest_edge": 37}
    assert processor["resample"] == 2
    assert load_source(SourceRequest(model=str(tmp_path / "hf"))).preprocess == source.preprocess


@torch.no_grad()
def test_a_text_tower_of_transformers_goes_back_to_open_clip(tmp_path: Path) -> None:
    """The layout of robustzs-lite: the folder that was written needs no other one."""
    bert = small_bert(tmp_path / "bert")
    text = {**LITE["text_cfg"], "hf_model_name": str(bert), "hf_tokenizer_name": str(bert)}
    config = {**LITE, "text_cfg": text}
    model = build_model(config)
    path = tmp_path / "weights.safetensors"
    save_file(model.state_dict(), path)
    request = SourceRequest(model=write_config(tmp_path, config), pretrained=str(path))
    folder = tmp_path / "back"
    notes = write_open_clip(load_source(request), folder)
    assert any("if you move it" in note for note in notes)
    shutil.rmtree(bert)
    again, _, _ = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    again.eval()
    ids = open_clip.get_tokenizer(f"local-dir:{folder}")(PROMPTS)
    assert_same(model.encode_text(ids), again.encode_text(ids))
    images = torch.randn(2, 3, 64, 64)
    assert_same(model.encode_image(images), again.encode_image(images))
    with pytest.raises(ExportError, match="CLIPModel"):
        config_to_hugging_face(config)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vision_cfg": {**TINY["vision_cfg"], "layers": [1, 1, 1, 1]}}, "ResNet"),
        ({"vision_cfg": {**TINY["vision_cfg"], "pool_type": "avg"}}, "pool_type"),
        ({"vision_cfg": {**TINY["vision_cfg"], "image_size": [32, 48]}}, "square"),
        ({"text_cfg": {**TINY["text_cfg"], "no_causal_mask": True}}, "no_causal_mask"),
        ({"custom_text": True}, "custom_text"),
    ],
)
def test_what_transformers_cannot_express_is_refused(changes: Any, message: str) -> None:
    with pytest.raises(ExportError, match=message) as caught:
        config_to_hugging_face({**TINY, **changes})
    assert "--to open-clip" in caught.value.hint


def test_only_such_a_folder_is_replaced(source: SourceModel, tmp_path: Path) -> None:
    folder = tmp_path / "taken"
    folder.mkdir()
    (folder / "thesis.tex").write_text("years of work")
    for force in (False, True):
        with pytest.raises(BundleExistsError):
            write_open_clip(source, folder, force=force)
    assert (folder / "thesis.tex").read_text() == "years of work"
    shutil.rmtree(folder)
    write_open_clip(source, folder)
    with pytest.raises(BundleExistsError):
        write_open_clip(source, folder)
    write_open_clip(source, folder, force=True)
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]
