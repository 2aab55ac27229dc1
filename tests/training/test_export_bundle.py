from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from robustzs_training.backbones import BACKBONE_PREFIX, MINILM
from robustzs_training.export.bundle import (
    PROBE_PROMPTS,
    BundleFacts,
    Quantiser,
    TextPrecisions,
    export_open_clip_model,
)
from robustzs_training.export.onnx_export import OnnxOptions
from robustzs_training.export.parity import (
    Probes,
    open_session,
    probe_pixels,
    prove_logits,
    prove_variant,
)
from robustzs_training.export.tokenizers import clip_tokenizer, tokenizer_of
from robustzs_training.export.towers import ImageTower, TextTower
from robustzs_training.models import build_model, load_bundle_model, load_tensors

from robustzs.bundle.manifest import BackboneRecord, Geometry, LicenceRecord, SourceRecord
from robustzs.bundle.store import Bundle
from robustzs.errors import (
    BundleExistsError,
    BundleWeightsMissingError,
    ExportError,
    ExportParityError,
)
from robustzs.images.config import PreprocessConfig
from robustzs.tokenizer import Tokenizer
from tests.training.tiny_clip import LITE, TINY, TINY_QUICK, make_clip, small_bert

MEAN, STD = (0.48, 0.46, 0.41), (0.27, 0.26, 0.28)


def facts(**changes: Any) -> BundleFacts:
    values: dict[str, Any] = {
        "name": "tiny",
        "source": SourceRecord(description="random numbers"),
        "preprocess": PreprocessConfig(image_size=(32, 32)),
        "mean": MEAN,
        "std": STD,
        "licences": (LicenceRecord(name="CC0-1.0", covers="everything"),),
    }
    return BundleFacts(**{**values, **changes})


def export(model: Any, output: Path, config: dict[str, Any] = TINY, **options: Any) -> Any:
    options.setdefault("facts", facts())
    return export_open_clip_model(
        model, config=config, tokenizer=tokenizer_of(config), output=output, **options
    )


def run(path: Path, array: Any) -> Any:
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: array})[0]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    """A tiny QuickGELU CLIP and its bundle with weights."""
    model = make_clip(TINY_QUICK)
    output = tmp_path_factory.mktemp("bundle") / "tiny"
    return model, export(model, output, TINY_QUICK, weights="all")


def test_the_bundle_gives_torchs_features(exported: tuple[Any, Any]) -> None:
    model, result = exported
    bundle = Bundle.load(result.bundle.path)
    pixels = np.random.default_rng(7).random((3, 3, 32, 32), dtype=np.float32)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (MEAN, STD))
    ids = Tokenizer.from_bundle(bundle)(["a photo of a cat", "two dogs", "a tree in autumn"])
    with torch.no_grad():
        image = model.encode_image((torch.from_numpy(pixels) - mean) / std).numpy()
        text = model.encode_text(torch.from_numpy(ids)).numpy()
    for name, array, expected in (
        ("image_encoder.onnx", pixels, image),
        ("text_encoder.onnx", ids, text),
    ):
        found = run(bundle.file(name), array)
        assert found.dtype == np.float32
        assert np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()


def test_the_record_says_what_the_model_is(exported: tuple[Any, Any]) -> None:
    manifest = exported[1].bundle.manifest
    assert manifest.embed_dim == 24
    assert manifest.logit_scale == pytest.approx(100.0, rel=1e-4)
    assert manifest.opset == 18
    assert manifest.image_encoders == {"fp32": "image_encoder.onnx"}
    assert manifest.tokenizer.kind == "clip-bpe"
    assert manifest.tokenizer.fixed_length
    assert (manifest.mean, manifest.std) == (MEAN, STD)
    card = (exported[1].bundle.path / "README.md").read_text(encoding="utf-8")
    assert "random numbers" in card
    assert "CC0-1.0" in card


def test_the_graphs_are_as_the_backends_expect(exported: tuple[Any, Any]) -> None:
    path = exported[1].bundle.path
    image, text = (onnx.load(path / f"{tower}_encoder.onnx") for tower in ("image", "text"))
    for model, names in (
        (image, ("pixels", "image_features")),
        (text, ("token_ids", "text_features")),
    ):
        assert (model.graph.input[0].name, model.graph.output[0].name) == names
        assert len(model.graph.input) == len(model.graph.output) == 1
        assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
        assert {entry.domain: entry.version for entry in model.opset_import} == {"": 18}
        assert not model.graph.value_info
        assert not model.metadata_props
        assert not any(node.metadata_props or node.doc_string for node in model.graph.node)
    assert text.graph.input[0].type.tensor_type.shape.dim[1].dim_value == 77
    # Each tower carries its own weights only.
    state = exported[0].state_dict()
    size = sum(tensor.nbytes for key, tensor in state.items() if key.startswith("visual."))
    assert (path / "image_encoder.onnx").stat().st_size < 1.5 * size + 200_000


def test_the_proof_is_reported(exported: tuple[Any, Any]) -> None:
    parity = exported[1].parity
    values = (parity.image_raw, parity.image_normalised, parity.text_raw, parity.similarity)
    assert all(0.0 <= value <= 1e-5 for value in values)
    assert max(values) > 0.0


def test_torch_gets_its_model_back(exported: tuple[Any, Any]) -> None:
    model, result = exported
    loaded = load_bundle_model(result.bundle)
    assert loaded.config["quick_gelu"] is True
    assert (loaded.mean, loaded.std) == (MEAN, STD)
    assert not loaded.model.training
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.model.state_dict()[name], tensor), name
    assert loaded.tokenizer(["a cat"]).shape == (1, 77)


@pytest.mark.slow
def test_the_same_model_gives_the_same_bundle_and_no_machine_paths(
    exported: tuple[Any, Any], tmp_path: Path
) -> None:
    model, result = exported
    again = export(model, tmp_path / "again", TINY_QUICK, weights="all")
    assert again.bundle.digest == result.bundle.digest
    here = str(Path(torch.__file__).parents[1]).encode()
    for path in result.bundle.path.iterdir():
        assert here not in path.read_bytes(), path.name


def test_external_data_stay_in_the_bundle(tmp_path: Path) -> None:
    model = make_clip(TINY)
    options = OnnxOptions(external_data=True)
    result = export(model, tmp_path / "big", options=options)
    assert isinstance(result.bundle, Bundle)
    files = result.bundle.manifest.files
    assert {"image_encoder.onnx.data", "text_encoder.onnx.data"} <= set(files)
    assert files["text_encoder.onnx"].size < files["text_encoder.onnx.data"].size / 10
    moved = tmp_path / "moved"
    shutil.move(result.bundle.path, moved)
    bundle = Bundle.load(moved)
    ids = Tokenizer.from_bundle(bundle)(["a cat"])
    with torch.no_grad():
        expected = model.encode_text(torch.from_numpy(ids)).numpy()
    found = run(bundle.file("text_encoder.onnx"), ids)
    assert np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()
    with pytest.raises(BundleWeightsMissingError, match="--weights"):
        load_bundle_model(bundle)


class Restless(torch.nn.Module):
    """Never gives the same features twice, so no graph can be faithful to it."""

    def __init__(self, inner: torch.nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        features: torch.Tensor = self.inner(pixels)
        return features + 0.01 * torch.rand_like(features)


def test_a_graph_that_differs_from_torch_is_not_written(tmp_path: Path) -> None:
    model = make_clip(TINY)
    model.visual = Restless(model.visual)
    with pytest.raises(ExportParityError, match="image encoder, raw features, batch 1"):
        export(model, tmp_path / "restless")
    assert list(tmp_path.iterdir()) == []


def test_an_existing_folder_is_kept_unless_forced(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "thesis.tex").write_text("years of work")
    for force in (False, True):
        with pytest.raises(BundleExistsError):
            export(make_clip(TINY), tmp_path / "taken", force=force)
    assert [path.name for path in (tmp_path / "taken").iterdir()] == ["thesis.tex"]


@pytest.fixture(scope="module")
def lite(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, dict[str, Any]]:
    """robustzs-lite in small: a timm CNN and a Hugging Face text tower."""
    folder = small_bert(tmp_path_factory.mktemp("bert"))
    text = {**LITE["text_cfg"], "hf_model_name": str(folder), "hf_tokenizer_name": str(folder)}
    config = {**LITE, "text_cfg": text}
    torch.manual_seed(1)
    return build_model(config), config


def lite_facts() -> BundleFacts:
    return facts(preprocess=PreprocessConfig(image_size=(64, 64)), templates=("a {}.",))


def in_steps(levels: int) -> Quantiser:
    """A stand-in for weight-only quantisation: matrices in steps of 1/levels of their maximum."""

    def quantise(source: Path, target: Path) -> None:
        model = onnx.load(source)
        for tensor in model.graph.initializer:
            values = onnx.numpy_helper.to_array(tensor)
            if values.ndim == 2 and values.dtype == np.float32:
                step = np.float32(np.abs(values).max() / levels)
                stepped = np.round(values / step) * step
                tensor.CopyFrom(onnx.numpy_helper.from_array(stepped, tensor.name))
        onnx.save(model, target)

    return quantise


def test_the_layout_of_robustzs_lite(lite: tuple[Any, dict[str, Any]], tmp_path: Path) -> None:
    model, config = lite
    result = export(
        model,
        tmp_path / "lite",
        config,
        facts=lite_facts(),
        text_precisions=TextPrecisions(
            quantisers={"int8": in_steps(127)}, default="int8", keep_fp32=False
        ),
        extra_files={"card.json": b'{"robustness": "about zero"}'},
    )
    bundle = result.bundle
    assert bundle.manifest.text_encoders == {"int8": "text_encoder.int8.onnx"}
    assert bundle.manifest.default_text_precision == "int8"
    assert not (bundle.path / "text_encoder.onnx").exists()
    assert bundle.card() == {"robustness": "about zero"}
    assert 0.999 <= dict(result.parity.variants)["int8"] < 1.0
    tokenizer = Tokenizer.from_bundle(bundle)
    reference = tokenizer_of(config).reference
    for text in ("cat", "a photo of the Norwegian elkhound on a hill", "word " * 100):
        ids = tokenizer([text])
        assert ids.shape[1] <= 77
        with torch.no_grad():
            expected = model.encode_text(torch.from_numpy(reference([text]))).numpy()
        found = run(bundle.file("text_encoder.int8.onnx"), ids)
        cosine = (found * expected).sum() / np.linalg.norm(found) / np.linalg.norm(expected)
        assert cosine > 0.999


def test_weights_that_need_a_folder_of_this_machine_are_not_carried(
    lite: tuple[Any, dict[str, Any]], tmp_path: Path
) -> None:
    model, config = lite
    with pytest.raises(ExportError, match="bert"):
        export(model, tmp_path / "lite", config, facts=lite_facts(), weights="all")


def test_a_spoilt_precision_is_refused(exported: tuple[Any, Any], tmp_path: Path) -> None:
    path = exported[1].bundle.file("text_encoder.onnx")
    probes = some_probes()
    for levels, accepted in ((127, True), (1, False)):
        in_steps(levels)(path, tmp_path / "text_encoder.int8.onnx")
        variant = open_session(tmp_path / "text_encoder.int8.onnx")
        if accepted:
            assert prove_variant("int8", variant, open_session(path), probes) > 0.999
        else:
            with pytest.raises(ExportParityError, match="int8: cosine"):
                prove_variant("int8", variant, open_session(path), probes)


def test_a_precision_that_depends_on_the_batch_is_refused(exported: tuple[Any, Any]) -> None:
    """As dynamic quantisation does, whose scale is taken over the whole batch."""
    encode = open_session(exported[1].bundle.file("text_encoder.onnx"))

    def dynamic(array: Any) -> Any:
        features = encode(array)
        step = np.abs(features).max() / 127
        return np.round(features / step) * step

    with pytest.raises(ExportParityError, match="alone or in a batch"):
        prove_variant("int8", dynamic, encode, some_probes())


def some_probes() -> Probes:
    return Probes(
        pixels=probe_pixels((32, 32)),
        token_ids=clip_tokenizer().reference(PROBE_PROMPTS),
        pad_id=0,
        fixed_length=True,
    )


def minilm_config() -> dict[str, Any]:
    name = BACKBONE_PREFIX + MINILM.name
    return {
        **LITE,
        "text_cfg": {**LITE["text_cfg"], "hf_model_name": name, "hf_tokenizer_name": name},
    }


def test_weights_are_what_the_backbone_does_not_provide(tmp_path: Path) -> None:
    """Layers of the backbone that were trained after all are carried, the others are not."""
    from robustzs_training.export.bundle import _tensors_to_carry

    config, record = minilm_config(), MINILM.record("text.transformer.")
    model = build_model(config)
    trained = "text.transformer.encoder.layer.5.output.dense.weight"
    with torch.no_grad():
        model.get_parameter(trained).add_(0.01)
    tensors = _tensors_to_carry(model, config, "trained", [record])
    assert tensors is not None
    assert [name for name in tensors if name.startswith("text.transformer.")] == [trained]
    assert {"logit_scale", "text.proj.0.weight", "visual.head.proj.weight"} <= set(tensors)
    fresh = build_model(config)
    load_tensors(fresh, tensors, frozen=["text.transformer."])
    for name, tensor in model.state_dict().items():
        assert torch.equal(fresh.state_dict()[name], tensor), name
    half = {name: tensor.half() for name, tensor in tensors.items() if tensor.is_floating_point()}
    with pytest.raises(ExportError, match="not those of the model"):
        _tensors_to_carry(model, config, {**tensors, **half}, [record])
    del tensors[trained]
    with pytest.raises(ExportError, match=r"layer\.5"):
        _tensors_to_carry(model, config, tensors, [record])


def test_a_backbone_of_another_version_is_refused() -> None:
    from robustzs_training.backbones import locate_backbone

    from robustzs.errors import BundleDigestError, BundleError

    record = MINILM.record("text.transformer.")
    assert locate_backbone(record) == MINILM.path
    with pytest.raises(BundleDigestError, match="all-MiniLM-L6-v2"):
        locate_backbone(record.model_copy(update={"sha256": "0" * 64}))
    with pytest.raises(BundleError, match="unknown backbone 'gpt-9'"):
        locate_backbone(BackboneRecord(name="gpt-9", source="?", sha256="0" * 64, prefix="text."))


@pytest.mark.parametrize(
    "geometry",
    [Geometry(), Geometry(kind="poincare", curvature=0.5, image_scale=0.1, text_scale=0.2)],
)
def test_logits_are_proven_as_they_are_scored(
    exported: tuple[Any, Any], geometry: Geometry
) -> None:
    model, result = exported
    names = ("image_encoder.onnx", "text_encoder.onnx")
    image, text = (open_session(result.bundle.file(name)) for name in names)
    towers = (ImageTower(model, MEAN, STD), TextTower(model))
    assert prove_logits(towers, (image, text), some_probes(), geometry) <= 1e-5
    shuffled = (image, lambda ids: text(ids)[::-1])
    with pytest.raises(ExportParityError, match="zero-shot logits"):
        prove_logits(towers, shuffled, some_probes(), geometry)
