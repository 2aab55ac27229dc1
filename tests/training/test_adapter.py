"""The adapter: one way to each feature, equal to open_clip's own."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from robustzs_training.adapter import ClipAdapter, attack_mode
from robustzs_training.models import build_model
from torch.utils._python_dispatch import TorchDispatchMode

from robustzs import scoring
from robustzs.bundle.manifest import Geometry
from robustzs.errors import UsageError
from tests.training.tiny_models import (
    CONTEXT_LENGTH,
    MEAN,
    STD,
    TEXT,
    VIT,
    VOCABULARY,
    make_adapter,
    make_hf_adapter,
    make_pixels,
    make_tokens,
)

SIZES = {"vit": 16, "resnet": 64, "cnn": 96}


@pytest.fixture(scope="module")
def hf_adapter(tmp_path_factory: pytest.TempPathFactory) -> ClipAdapter:
    return make_hf_adapter(tmp_path_factory.mktemp("bert"))


def adapter_of(layout: str, hf_adapter: ClipAdapter) -> ClipAdapter:
    if layout == "hf":
        return hf_adapter
    options: dict[str, dict[str, Any]] = {
        "clip": {},
        "custom": {"custom_text": True},
        "biased": {"custom_text": True, "proj_bias": True},
        "eos": {"pool_type": "eos", "eos_id": VOCABULARY - 1},
        "bidirectional": {
            "custom_text": True,
            "no_causal_mask": True,
            "pool_type": "last",
        },
    }
    adapter = make_adapter("vit", **options[layout])
    if layout == "bidirectional":  # no configuration of open_clip 3.3 reaches it
        adapter.model.text.use_pad_mask = True
    return adapter


LAYOUTS = ["clip", "custom", "biased", "eos", "bidirectional", "hf"]


@pytest.mark.parametrize("vision", SIZES)
def test_pixels_are_normalised_inside(vision: str) -> None:
    adapter, pixels = make_adapter(vision), make_pixels(2, SIZES[vision])
    mean, std = torch.tensor(MEAN).view(3, 1, 1), torch.tensor(STD).view(3, 1, 1)
    with torch.no_grad():
        wanted = adapter.model.encode_image((pixels - mean) / std)  # type: ignore[operator]
        torch.testing.assert_close(adapter.image_features(pixels), wanted)
        unit = adapter.image_features(pixels, normalize=True)
    torch.testing.assert_close(unit.norm(dim=1), torch.ones(2))


@pytest.mark.parametrize("vision", SIZES)
def test_patches_come_with_the_image_feature_of_the_same_pass(vision: str) -> None:
    adapter, pixels = make_adapter(vision), make_pixels(2, SIZES[vision])
    with torch.no_grad():
        found = adapter.patch_features(pixels)
        torch.testing.assert_close(found.image_features, adapter.image_features(pixels))
        frozen = adapter.frozen_image_encoder().patch_features(pixels)
    assert found.patches.shape == (2, found.grid[0] * found.grid[1], 16)
    assert found.grid[0] > 1
    torch.testing.assert_close(frozen.patches, found.patches)


def test_the_mean_of_a_pooled_cnn_s_patches_is_the_feature() -> None:
    adapter, pixels = make_adapter("cnn").double(), make_pixels(2, 96).double()
    with torch.no_grad():
        found = adapter.patch_features(pixels)
    torch.testing.assert_close(found.patches.mean(1), found.image_features)


def test_the_patches_of_a_vit_that_averages_average_to_the_feature() -> None:
    config = {"embed_dim": 16, "vision_cfg": {**VIT, "pool_type": "avg"}, "text_cfg": dict(TEXT)}
    adapter = ClipAdapter(build_model(config), MEAN, STD)
    with torch.no_grad():
        found = adapter.patch_features(make_pixels(2))
    torch.testing.assert_close(found.patches.mean(1), found.image_features)


def test_patches_of_a_resnet_average_to_the_feature_where_attention_is_even() -> None:
    adapter = make_adapter("resnet").double()
    pool = adapter.visual.attnpool
    with torch.no_grad():
        pool.q_proj.weight.zero_()
        pool.q_proj.bias.zero_()
        found = adapter.patch_features(make_pixels(2, 64).double())
        # Attention also sees the mean token: its value is the mean of the patches', but for the
        # positions that were added.
        positions = pool.positional_embedding
        extra = pool.c_proj(pool.v_proj(positions[0] - positions[1:].mean(0)))
        extra = extra - pool.c_proj(pool.v_proj(torch.zeros_like(positions[0])))
    wanted = found.patches.mean(1) + extra / positions.shape[0]
    torch.testing.assert_close(found.image_features, wanted)


def test_towers_without_patches_are_named() -> None:
    config = {
        "embed_dim": 16,
        "vision_cfg": {
            "image_size": 32,
            "timm_model_name": "test_vit",
            "timm_pool": "token",
            "timm_proj": "linear",
        },
        "text_cfg": dict(TEXT),
    }
    adapter = ClipAdapter(build_model(config), MEAN, STD)
    with pytest.raises(UsageError, match="pooled CNN"):
        adapter.patch_features(make_pixels(1, adapter.visual.image_size[0]))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_text_features_are_open_clip_s_own(layout: str, hf_adapter: ClipAdapter) -> None:
    adapter, tokens = adapter_of(layout, hf_adapter), make_tokens(6)
    with torch.no_grad():
        wanted = adapter.model.encode_text(tokens)  # type: ignore[operator]
        assert torch.equal(adapter.text_features(tokens), wanted)
        trimmed = adapter.trim(tokens)
        torch.testing.assert_close(adapter.text_features(trimmed), wanted, atol=2e-6, rtol=1e-5)
    assert trimmed.shape[1] < CONTEXT_LENGTH or layout == "bidirectional"
    assert adapter.project_text(adapter.pooled_text(tokens)).shape == (6, 16)
    projected = adapter.frozen_text_projection()(adapter.pooled_text(tokens))
    torch.testing.assert_close(projected, wanted)
    assert not any(p.requires_grad for p in adapter.frozen_text_projection().parameters())


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_perturbation_joins_the_token_embeddings(layout: str, hf_adapter: ClipAdapter) -> None:
    adapter, tokens = adapter_of(layout, hf_adapter), make_tokens(3)
    delta = torch.zeros(3, CONTEXT_LENGTH, adapter.text_width, requires_grad=True)
    found = adapter.text_features(tokens, perturbation=delta)
    with torch.no_grad():
        assert torch.equal(found, adapter.text_features(tokens))
    (gradient,) = torch.autograd.grad(found.square().sum(), delta)
    ends = (tokens == VOCABULARY - 1).int().argmax(1)
    for row, end in enumerate(ends.tolist()):
        assert float(gradient[row, : end + 1].abs().amin(1).max()) > 0
        if layout != "bidirectional":
            assert float(gradient[row, end + 1 :].abs().sum()) == 0
    # Moving a token onto another's embedding is replacing the token.
    other = tokens.clone()
    other[:, 0] = 5
    embedding = adapter._text.token_embedding
    with torch.no_grad():
        swap = torch.zeros_like(delta)
        swap[:, 0] = embedding(other[:, 0]) - embedding(tokens[:, 0])
        moved = adapter.text_features(tokens, perturbation=swap)
        torch.testing.assert_close(moved, adapter.text_features(other), atol=1e-5, rtol=1e-4)
        assert not torch.allclose(moved, adapter.text_features(tokens))
    assert not embedding._forward_hooks


def test_class_features_are_those_that_the_core_computes() -> None:
    adapter, tokens = make_adapter(), make_tokens(12).reshape(4, 3, -1)
    found = adapter.class_features(tokens, chunk=5)
    with torch.no_grad():
        raw = adapter.text_features(tokens.flatten(0, 1)).reshape(4, 3, -1)
    wanted = scoring.class_features(raw.numpy(), Geometry(kind="cosine"))
    torch.testing.assert_close(found, torch.from_numpy(wanted), atol=2e-6, rtol=1e-5)
    with pytest.raises(UsageError, match="templates"):
        adapter.class_features(tokens[0])


def test_batch_norm_and_text_never_train(hf_adapter: ClipAdapter) -> None:
    adapter = copy.deepcopy(hf_adapter).train()
    pixels, tokens = make_pixels(4, 32), make_tokens(3)
    before = {name: b.clone() for name, b in adapter.named_buffers()}
    assert adapter.visual.training
    found = [adapter.image_features(pixels).detach() for _ in range(2)]
    texts = [adapter.text_features(tokens).detach() for _ in range(2)]  # BERT drops out
    assert torch.equal(*found)
    assert torch.equal(*texts)
    assert all(torch.equal(before[name], b) for name, b in adapter.named_buffers())
    alone = adapter.image_features(pixels[:1]).detach()
    torch.testing.assert_close(alone, found[0][:1], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(adapter.eval().image_features(pixels).detach(), found[0])


def test_a_frozen_copy_stays_what_it_was() -> None:
    adapter = make_adapter("cnn")
    pixels = make_pixels(2, 32)
    frozen = adapter.frozen_image_encoder().train()
    with torch.no_grad():
        before = frozen.image_features(pixels)
        for parameter in adapter.visual.parameters():
            parameter.add_(0.1)
        assert torch.equal(frozen.image_features(pixels), before)
        assert not torch.allclose(adapter.image_features(pixels), before)
    assert not any(p.requires_grad for p in frozen.parameters())
    assert not any(part.training for part in frozen.modules())


class _Products(TorchDispatchMode):
    """Names of the matrix products that run inside, forward and backward."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket._qualified_op_name.endswith(("::bmm", "::baddbmm")):
            self.names.append(f"{func} of {list(args[0].shape)}")
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("custom", [False, True])
def test_an_attack_multiplies_no_token_by_itself(custom: bool) -> None:
    """A copy of the weights for every token made attacks several times as slow."""
    adapter = make_adapter("vit", custom_text=custom)
    pixels, token_ids = make_pixels(3).requires_grad_(), make_tokens(4)
    shape = (*token_ids.shape, adapter.text_width)
    perturbation = torch.zeros(shape, dtype=pixels.dtype, requires_grad=True)
    with attack_mode(adapter), _Products() as products:
        images = adapter.image_features(pixels)
        texts = adapter.text_features(token_ids, perturbation=perturbation)
        torch.autograd.grad(images.sum() + texts.sum(), [pixels, perturbation])
    assert products.names == []


def test_fixed_tables_of_positions_never_train() -> None:
    vision = {**VIT, "pos_embed_type": "sin_cos_2d"}
    adapter = ClipAdapter(
        build_model({"embed_dim": 16, "vision_cfg": vision, "text_cfg": dict(TEXT)}), MEAN, STD
    )
    for each in (adapter, copy.deepcopy(adapter)):
        names = each.visual_parameters()
        assert "visual.positional_embedding" not in names
        assert "visual.proj" in names


def test_attack_mode_restores_a_mixed_state() -> None:
    adapter = make_adapter("cnn").train()
    next(adapter.model.parameters()).requires_grad_(False)
    modes = [part.training for part in adapter.modules()]
    flags = [p.requires_grad for p in adapter.parameters()]
    with attack_mode(adapter):
        assert not any(part.training for part in adapter.modules())
        assert not any(p.requires_grad for p in adapter.parameters())
    assert [part.training for part in adapter.modules()] == modes
    assert [p.requires_grad for p in adapter.parameters()] == flags


def test_coca_is_refused() -> None:
    config = {
        "embed_dim": 16,
        "vision_cfg": {**VIT, "attentional_pool": True, "attn_pooler_heads": 2},
        "text_cfg": {**TEXT, "embed_cls": True},
        "multimodal_cfg": {**TEXT, "attn_pooler_heads": 2},
    }
    with pytest.raises(UsageError, match="CoCa"):
        ClipAdapter(build_model(config), MEAN, STD)
