from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from robustzs_training.export.sources import SourceModel, SourceRequest, load_source
from safetensors.torch import save_file
from torchvision import transforms

from robustzs.errors import (
    CheckpointFormatError,
    ExportError,
    RobustZSError,
    UsageError,
)
from robustzs.images.config import PreprocessConfig
from robustzs.images.preprocess import preprocess
from tests.training.tiny_clip import (
    TINY,
    TINY_QUICK,
    fine_tuned,
    half_but_norms,
    image_features,
    make_clip,
    openai_scalars,
    register_tiny,
    write_config,
)


def load(model: str, pretrained: Path | str | None = None, **options: Any) -> SourceModel:
    return load_source(
        SourceRequest(
            model=model, pretrained=None if pretrained is None else str(pretrained), **options
        )
    )


@pytest.fixture(scope="module")
def openai() -> torch.nn.Module:
    return make_clip(TINY_QUICK, seed=0)


@pytest.fixture(scope="module")
def laion() -> torch.nn.Module:
    return make_clip(TINY, seed=5)


@pytest.fixture
def tiny(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    openai: torch.nn.Module,
    laion: torch.nn.Module,
) -> Path:
    """A folder; open_clip knows ``tiny-ViT`` and its tags ``openai`` and ``laion2b``."""
    register_tiny(tmp_path, monkeypatch, openai, laion)
    return tmp_path


def with_visual(config: dict[str, Any], whole: torch.nn.Module, visual: Any) -> torch.nn.Module:
    """What the publishers' own code builds: the base model with the visual encoder replaced."""
    model = make_clip(config, seed=9)
    model.load_state_dict(whole.state_dict())
    model.visual.load_state_dict(visual)
    return model


def test_the_two_activations_differ_visibly() -> None:
    """Else no test below could fail."""
    quick, exact = make_clip(TINY_QUICK), make_clip(TINY)
    exact.load_state_dict(quick.state_dict())
    ours, theirs = image_features(quick), image_features(exact)
    assert (ours - theirs).abs().max() > 1e-3 * ours.abs().max()


@pytest.mark.parametrize("architecture", ["tiny-ViT", "tiny-ViT-quickgelu"])
def test_fare_gets_openais_text_tower_and_quickgelu(
    tiny: Path, openai: torch.nn.Module, architecture: str
) -> None:
    path, visual = tiny / "fare_eps_4.pt", fine_tuned(openai)
    torch.save(visual, path)
    source = load(architecture, path)
    expected = with_visual(TINY_QUICK, openai, visual)
    assert torch.equal(image_features(source.model), image_features(expected))
    assert source.config["quick_gelu"] is True
    for name, tensor in expected.state_dict().items():
        assert torch.equal(source.model.state_dict()[name], tensor), name
    assert source.preprocess.resize_size is None
    assert source.preprocess.interpolation == "bicubic"
    assert "fare_eps_4.pt" in source.source.description
    assert "openai" in source.source.description
    assert bool(source.notes) == (architecture == "tiny-ViT")


@pytest.mark.parametrize("architecture", ["tiny-ViT", "tiny-ViT-quickgelu"])
def test_a_tower_trained_from_laion_keeps_the_exact_gelu(
    tiny: Path, laion: torch.nn.Module, architecture: str
) -> None:
    path, visual = tiny / "tecoa_laion.pt", fine_tuned(laion)
    torch.save(visual, path)
    source = load(architecture, path, base="laion2b")
    expected = with_visual(TINY, laion, visual)
    assert torch.equal(image_features(source.model), image_features(expected))
    assert source.config["quick_gelu"] is False


def test_a_tower_with_another_base_is_refused(tiny: Path, laion: torch.nn.Module) -> None:
    path = tiny / "tecoa_laion.pt"
    torch.save(fine_tuned(laion), path)
    with pytest.raises(ExportError, match="was not trained from") as caught:
        load("tiny-ViT", path)
    assert "--base" in caught.value.hint


@pytest.mark.parametrize("prefix", ["", "module."])
def test_qt_aft_gets_quickgelu_and_its_own_resize(
    tiny: Path, openai: torch.nn.Module, prefix: str
) -> None:
    path, visual = tiny / "CLIP-ViT-B-16_QTAFT_eps4.pt", fine_tuned(openai)
    inner = {prefix + key: tensor for key, tensor in visual.items()}
    torch.save({"epoch": 2, "step": 20018, "vision_encoder_state_dict": inner}, path)
    source = load("tiny-ViT", path)
    expected = with_visual(TINY_QUICK, openai, visual)
    assert torch.equal(image_features(source.model), image_features(expected))
    assert source.preprocess.resize_size == round(32 * 256 / 224)
    assert source.preprocess.interpolation == "bilinear"
    assert source.preprocess.image_size == (32, 32)
    assert any("Resize" in note or "resized" in note for note in source.notes)


def test_qt_afts_resize_is_that_of_its_code(tiny: Path, openai: torch.nn.Module) -> None:
    """At 224 it is Resize(256), CenterCrop(224) with torchvision's default filter."""
    config = {**TINY_QUICK, "vision_cfg": {**TINY["vision_cfg"], "image_size": 224}}
    model = make_clip(config)
    base = tiny / "base.pt"
    torch.save({**model.state_dict(), **openai_scalars()}, base)
    path = tiny / "qtaft.pt"
    torch.save({"vision_encoder_state_dict": fine_tuned(model)}, path)
    source = load(write_config(tiny, config), path, base=str(base))
    assert source.preprocess == PreprocessConfig(
        image_size=(224, 224), resize_size=256, interpolation="bilinear"
    )
    noise = np.random.default_rng(0).integers(0, 256, (300, 420, 3), np.uint8)
    picture = Image.fromarray(noise)
    theirs = transforms.Compose(
        [transforms.Resize(256), transforms.CenterCrop(224), transforms.ToTensor()]
    )
    assert np.array_equal(preprocess(picture, source.preprocess), theirs(picture).numpy())


def test_the_resize_can_be_said(tiny: Path, openai: torch.nn.Module) -> None:
    path = tiny / "pmg_aft.pt"
    torch.save({"vision_encoder_state_dict": fine_tuned(openai)}, path)
    assert load("tiny-ViT", path, resize="open-clip").preprocess.resize_size is None
    fare = tiny / "fare.pt"
    torch.save(fine_tuned(openai), fare)
    assert load("tiny-ViT", fare, resize="qt-aft").preprocess.resize_size == 37


def test_an_openai_state_dict_switches_the_activation(tiny: Path, openai: torch.nn.Module) -> None:
    path = tiny / "ViT-B-32.pt"
    torch.save({**half_but_norms(openai.state_dict()), **openai_scalars()}, path)
    source = load(write_config(tiny, TINY), path)
    rounded = make_clip(TINY_QUICK)
    rounded.load_state_dict(half_but_norms(openai.state_dict()))
    assert torch.equal(image_features(source.model), image_features(rounded))
    assert source.notes
    assert "QuickGELU" in source.notes[0]
    with pytest.raises(UsageError, match="contradicts"):
        load(write_config(tiny, TINY), path, activation="gelu")


def test_openais_tag_switches_the_activation(tiny: Path, openai: torch.nn.Module) -> None:
    source = load("tiny-ViT", "openai")
    assert torch.equal(image_features(source.model), image_features(openai))
    assert source.source.pretrained == "openai"
    assert source.source.architecture == "tiny-ViT"


@pytest.mark.parametrize("architecture", ["tiny-ViT", "tiny-ViT-quickgelu"])
def test_laions_tag_does_not(tiny: Path, laion: torch.nn.Module, architecture: str) -> None:
    source = load(architecture, "laion2b")
    assert torch.equal(image_features(source.model), image_features(laion))
    assert source.config["quick_gelu"] is False


def test_openais_precision_without_its_scalars_is_not_guessed_at(
    tiny: Path, openai: torch.nn.Module
) -> None:
    path = tiny / "clip.pt"
    torch.save(half_but_norms(openai.state_dict()), path)
    with pytest.raises(CheckpointFormatError, match="which GELU") as caught:
        load("tiny-ViT", path)
    assert "--activation" in caught.value.hint
    for source in (
        load("tiny-ViT", path, activation="quickgelu"),
        load("tiny-ViT-quickgelu", path),
    ):
        assert source.config["quick_gelu"] is True


def test_a_base_file_that_does_not_say_its_activation_is_not_guessed_at(
    tiny: Path, openai: torch.nn.Module
) -> None:
    path, base = tiny / "fare.pt", tiny / "base.safetensors"
    torch.save(fine_tuned(openai), path)
    save_file(openai.state_dict(), base)
    with pytest.raises(CheckpointFormatError, match="which GELU"):
        load("tiny-ViT", path, base=str(base))
    assert load("tiny-ViT", path, base=str(base), activation="gelu").config["quick_gelu"] is False
    assert load("tiny-ViT-quickgelu", path, base=str(base)).config["quick_gelu"] is True


def test_a_training_checkpoint_of_open_clip_follows_the_architecture(
    tiny: Path, laion: torch.nn.Module
) -> None:
    path = tiny / "epoch_32.pt"
    state = {f"module.{key}": tensor for key, tensor in laion.state_dict().items()}
    torch.save({"epoch": 32, "name": "run", "state_dict": state, "optimizer": {}}, path)
    source = load("tiny-ViT", path)
    assert torch.equal(image_features(source.model), image_features(laion))
    assert "--activation quickgelu" in source.notes[0]


def test_a_clip_model_of_transformers(tiny: Path) -> None:
    from transformers import CLIPConfig, CLIPModel

    settings = {
        "projection_dim": 24,
        "vision_config": {
            "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
            "num_attention_heads": 2, "image_size": 32, "patch_size": 8, "hidden_act": "gelu",
        },
        "text_config": {
            "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
            "num_attention_heads": 2, "hidden_act": "gelu", "eos_token_id": 49407,
            "bos_token_id": 49406,
        },
    }  # fmt: skip
    torch.manual_seed(0)
    model = CLIPModel(CLIPConfig(**settings)).eval()
    model.save_pretrained(tiny / "hf")
    source = load(str(tiny / "hf"))
    pixels = torch.rand(2, 3, 32, 32)
    ids = torch.tensor([[49406, 320, 1125, 49407, *[0] * 73]])
    with torch.no_grad():
        image = model.visual_projection(model.vision_model(pixel_values=pixels).pooler_output)
        text = model.text_projection(model.text_model(input_ids=ids).pooler_output)
        assert torch.allclose(source.model.encode_image(pixels), image, atol=1e-6)
        assert torch.allclose(source.model.encode_text(ids), text, atol=1e-6)
    assert source.config["quick_gelu"] is False
    assert "Hugging Face" in source.source.description


def test_an_open_clip_folder(tiny: Path, openai: torch.nn.Module) -> None:
    folder = tiny / "folder"
    folder.mkdir()
    save_file(openai.state_dict(), folder / "open_clip_model.safetensors")
    document = {
        "model_cfg": TINY_QUICK,
        "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.25] * 3, "resize_mode": "squash"},
    }
    (folder / "open_clip_config.json").write_text(json.dumps(document))
    for name in (str(folder), f"local-dir:{folder}"):
        source = load(name)
        assert torch.equal(image_features(source.model), image_features(openai))
        assert source.mean == (0.5, 0.5, 0.5)
        assert source.std == (0.25, 0.25, 0.25)
        assert source.preprocess.resize_mode == "squash"


def test_the_wrong_architecture_is_told_by_its_shapes(tiny: Path, openai: torch.nn.Module) -> None:
    wider = {**TINY, "vision_cfg": {**TINY["vision_cfg"], "width": 128}}
    with pytest.raises(ExportError, match=r"visual\.conv1\.weight: \[64, 3, 8, 8\], the archi"):
        load(write_config(tiny, wider), tiny / "openai.safetensors")


def test_missing_and_unexpected_keys_are_listed(tiny: Path, openai: torch.nn.Module) -> None:
    state = openai.state_dict()
    del state["visual.proj"]
    state["visual.extra.weight"] = torch.ones(1)
    path = tiny / "weights.pt"
    torch.save(state, path)
    with pytest.raises(ExportError) as caught:
        load("tiny-ViT", path)
    assert "missing: visual.proj" in caught.value.message
    assert "unexpected: visual.extra.weight" in caught.value.message


def test_a_visual_tower_with_missing_keys_is_refused(tiny: Path, openai: torch.nn.Module) -> None:
    visual = fine_tuned(openai)
    del visual["ln_post.bias"]
    torch.save(visual, tiny / "fare.pt")
    with pytest.raises(ExportError, match=r"missing: ln_post\.bias"):
        load("tiny-ViT", tiny / "fare.pt")


@pytest.mark.parametrize(
    ("model", "pretrained", "options", "message"),
    [
        ("ViT-B-23", "openai", {}, "did you mean"),
        ("tiny-ViT", None, {}, "no weights are named"),
        ("tiny-ViT", "no_such_tag", {}, "laion2b"),
        ("tiny-ViT", "openai", {"base": "laion2b"}, "holds both towers"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_a_remedy(
    tiny: Path, model: str, pretrained: str | None, options: dict[str, str], message: str
) -> None:
    with pytest.raises(UsageError) as caught:
        load(model, pretrained, **options)
    assert message in str(caught.value)
    assert caught.value.hint


def test_a_visual_tower_is_no_base(tiny: Path, openai: torch.nn.Module) -> None:
    path = tiny / "fare.pt"
    torch.save(fine_tuned(openai), path)
    with pytest.raises(RobustZSError, match="cannot be a base"):
        load("tiny-ViT-quickgelu", path, base=str(path))


def test_a_tokenizer_that_bundles_do_not_know_is_refused_before_weights_are_read(
    tiny: Path,
) -> None:
    text = {**TINY["text_cfg"], "vocab_size": 32000}
    path = tiny / "weights.pt"
    path.write_bytes(b"")
    with pytest.raises(ExportError, match="32000"):
        load(write_config(tiny, {**TINY, "text_cfg": text}), path)
