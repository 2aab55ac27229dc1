"""The recipe of robustzs-lite: its parts on small real inputs; the whole of it runs for an hour."""

from __future__ import annotations

import csv
from importlib import resources
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("open_clip")

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from robustzs_training.lite import attack, calibrate, label_sets, nouns, text_targets, texts
from robustzs_training.lite.heldout import draw_heldout_leaves, load_heldout_leaves, retrieval
from robustzs_training.lite.joint_space import build_joint_space, unit
from robustzs_training.lite.quantize import quantize_text_encoder

from robustzs.hierarchy.noun_index import NounIndex


def _head(n_classes: int = 60, n_features: int = 40) -> tuple[np.ndarray, ...]:
    generator = np.random.default_rng(0)
    weight = generator.normal(size=(n_classes, n_features))
    bias = generator.normal(size=n_classes)
    features = np.abs(generator.normal(size=(300, n_features))) + generator.normal(size=n_features)
    return weight, bias, features


def test_the_class_table_is_complete_unique_and_in_class_order() -> None:
    classes = nouns.load_imagenet_classes()
    wnids = [row.wnid for row in classes]
    assert len(classes) == 1000
    assert wnids == sorted(set(wnids))
    for words in ([row.prompt for row in classes], [row.name for row in classes]):
        assert len({word.casefold() for word in words}) == 1000
    source = resources.files("robustzs") / "hierarchy" / "data" / "imagenet1k_labels.csv"
    header = next(csv.reader(source.read_text(encoding="utf-8").splitlines()))
    assert header == ["wnid", "name", "prompt", "aliases"]
    by_wnid = {row.wnid: row.prompt for row in classes}
    assert by_wnid["n02012849"] == "crane bird"
    assert by_wnid["n03126707"] == "construction crane"
    assert by_wnid["n04008634"] == "projectile"


def test_no_alias_names_two_classes() -> None:
    owners: dict[str, set[str]] = {}
    for row in nouns.load_imagenet_classes():
        for word in (row.name, row.prompt, *row.aliases):
            owners.setdefault(word.casefold(), set()).add(row.wnid)
    assert {word: ids for word, ids in owners.items() if len(ids) > 1} == {}


def test_the_published_split_is_the_drawn_one() -> None:
    classes = nouns.load_imagenet_classes()
    listed = load_heldout_leaves(classes)
    assert len(listed) == 200
    assert np.array_equal(listed, draw_heldout_leaves(0))


def test_cosines_of_the_joint_space_rank_classes_as_the_head_does() -> None:
    weight, bias, features = _head()
    space = build_joint_space(weight, bias, features, np.arange(60), embed_dim=42)
    assert np.allclose(np.linalg.norm(space.targets, axis=1), 1.0)
    images = features @ space.weight.T + space.bias
    cosines = unit(images) @ space.targets.T
    logits = features @ weight.T + bias
    assert np.array_equal(cosines.argsort(1), logits.argsort(1))


def test_held_out_classes_shape_neither_space_nor_targets() -> None:
    weight, bias, features = _head()
    reference = np.arange(0, 60, 2)
    other = np.setdiff1d(np.arange(60), reference)
    space = build_joint_space(weight, bias, features, reference, embed_dim=20)
    weight[other] *= -3.0
    bias[other] += 5.0
    changed = build_joint_space(weight, bias, features, reference, embed_dim=20)
    assert np.array_equal(space.weight, changed.weight)
    assert np.array_equal(space.bias, changed.bias)
    assert np.array_equal(space.targets[reference], changed.targets[reference])
    assert not np.allclose(space.targets[other], changed.targets[other])

    classes = nouns.load_imagenet_classes()[:60]
    wnids = sorted(frozenset().union(*(nouns.ancestors_or_self(c.wnid) for c in classes)))
    generator = np.random.default_rng(1)
    embeddings = text_targets.NounEmbeddings(
        wnids=wnids,
        names=generator.normal(size=(len(wnids), 8)).astype(np.float32),
        glosses=generator.normal(size=(len(wnids), 8)).astype(np.float32),
    )
    before = text_targets.noun_targets(space, embeddings, classes, reference)
    after = text_targets.noun_targets(changed, embeddings, classes, reference)
    assert np.array_equal(before, after)
    assert np.allclose(np.linalg.norm(before, axis=1), 1.0)
    row = wnids.index(classes[reference[3]].wnid)
    assert np.allclose(before[row], space.targets[reference[3]])


def test_too_few_reference_classes_are_refused() -> None:
    weight, bias, features = _head()
    with pytest.raises(ValueError, match="5 reference classes"):
        build_joint_space(weight, bias, features, np.arange(5), embed_dim=20)


def test_retrieval_ignores_bias_and_norm_coordinates() -> None:
    directions = np.eye(4)
    features = np.concatenate([np.eye(4), 9.0 * np.ones((4, 2))], axis=1)
    assert retrieval(features, directions)["text_to_direction"] == 1.0
    assert retrieval(features[[1, 0, 2, 3]], directions)["direction_to_text"] == 0.5


def test_words_with_another_first_sense_stay_with_the_nouns() -> None:
    classes = nouns.load_imagenet_classes()
    taken = texts.taken_words(classes)
    assert {"computer mouse", "teapot", "tench"} <= taken
    assert not {"mouse", "ear", "head"} & taken
    targets = unit(np.random.default_rng(0).normal(size=(1000, 8)))
    known = texts.class_sentences(classes, np.arange(5), targets)
    assert len(known.groups) == 5
    assert "a photo of a tench." in known.texts
    assert all(np.isclose(w.sum(), 1.0) for w in known.weights)
    dog = NounIndex.load().get("dog.n.01").wnid
    sentences = texts.noun_sentences([dog], targets[:1], taken)
    assert sentences.texts[0] == "dog"
    assert np.allclose(sentences.targets[sentences.target[0]], targets[0], atol=1e-6)


def test_label_sets_hold_no_name_of_an_imagenet_class() -> None:
    names = {w.casefold() for c in nouns.load_imagenet_classes() for w in (c.name, c.prompt)}
    sets = [words.values() for _, words in label_sets.GCOMPRIS_WORDS.values()]
    sets += [words.values() for words in label_sets.OPENCLIPART_GROUPS.values()]
    sets += [words.values() for words in label_sets.OPENMOJI_WORDS.values()]
    sets.append(label_sets.GCOMPRIS_FOLDERS.values())
    assert len(sets) >= 10
    assert not {w for words in sets for w in words if w.casefold() in names}


def test_logit_scale_repeats_the_heads_confidence() -> None:
    cosines = np.random.default_rng(0).uniform(-1, 1, (50, 20))
    assert calibrate.match_logit_scale(cosines, 17.0 * cosines) == pytest.approx(17.0, rel=0.01)


def test_temperature_flattens_a_model_that_is_too_sure() -> None:
    generator = np.random.default_rng(0)
    logits = generator.normal(size=(4000, 10)) * 2.0
    probs = np.exp(calibrate.log_softmax(logits))
    truth = (probs.cumsum(1) > generator.uniform(size=(4000, 1))).argmax(1)
    right = np.eye(10, dtype=bool)[truth]
    assert calibrate.fit_temperature(3.0 * logits, right) == pytest.approx(3.0, rel=0.1)


def test_thresholds_follow_their_rules() -> None:
    similarities = np.linspace(0.0, 1.0, 101)
    assert (similarities >= calibrate.rejection_threshold(similarities)).mean() >= 0.95
    probs = np.array([0.1, 0.2, 0.3, 0.6, 0.7, 0.8])
    right = np.array([False, True, False, True, True, True])
    assert calibrate.low_confidence_threshold(probs, right) == 0.7
    assert calibrate.low_confidence_threshold(probs, right | True) == 0.0


def test_pgd_stays_in_the_ball_and_breaks_a_thin_margin() -> None:
    weight = torch.randn(2, 3 * 4 * 4, generator=torch.Generator().manual_seed(0))
    seen: list[torch.Tensor] = []

    def logits_of(pixels: torch.Tensor) -> torch.Tensor:
        seen.append(pixels.detach())
        return pixels.flatten(1) @ weight.T + bias

    pixels = np.full((2, 3, 4, 4), 0.5, np.float32)
    gap = float(((weight[0] - weight[1]) * 0.5).sum())
    reach = float((weight[0] - weight[1]).abs().sum()) * attack.THREAT.eps
    bias = torch.tensor([0.0, gap - 0.5 * reach])
    right = np.array([[True, False], [True, False]])
    assert not attack.pgd_survivors(logits_of, pixels, right).any()
    assert max(float((x - 0.5).abs().max()) for x in seen) <= attack.THREAT.eps + 1e-6
    bias = torch.tensor([0.0, gap - 2.0 * reach])
    assert attack.pgd_survivors(logits_of, pixels, right).all()
    assert not attack.pgd_survivors(logits_of, pixels, ~right).any()


def _toy_encoder(path: Path) -> None:
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    generator = np.random.default_rng(0)
    tensors = {
        "table": generator.normal(size=(200, 256)),
        "inner": generator.normal(size=(256, 128)),
        "outer": generator.normal(size=(130, 128)),
        "axis": np.array([1]),
    }
    initializers = [
        numpy_helper.from_array(v.astype(np.int64 if k == "axis" else np.float32), k)
        for k, v in tensors.items()
    ]
    nodes = [
        helper.make_node("Gather", ["table", "token_ids"], ["words"]),
        helper.make_node("ReduceMean", ["words", "axis"], ["mean"], keepdims=0),
        helper.make_node("MatMul", ["mean", "inner"], ["hidden"]),
        helper.make_node("Gemm", ["hidden", "outer"], ["text_features"], transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "toy",
        [helper.make_tensor_value_info("token_ids", TensorProto.INT64, ["batch", "tokens"])],
        [helper.make_tensor_value_info("text_features", TensorProto.FLOAT, ["batch", 130])],
        initializers,
    )
    opset = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), str(path))


@pytest.fixture(scope="module")
def toy_encoders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("quantize")
    full, small = folder / "full.onnx", folder / "small.onnx"
    _toy_encoder(full)
    quantize_text_encoder(full, small)
    return full, small


def test_quantised_graph_is_small_and_of_known_domains(toy_encoders: tuple[Path, Path]) -> None:
    import onnx

    full, small = toy_encoders
    assert small.stat().st_size < 0.3 * full.stat().st_size
    model = onnx.load(str(small))
    onnx.checker.check_model(model)
    assert {o.domain for o in model.opset_import} <= {"", "ai.onnx", "ai.onnx.ml", "com.microsoft"}
    assert [n.op_type for n in model.graph.node].count("MatMulNBits") == 2


@settings(max_examples=20, deadline=None)
@given(batch=st.integers(1, 5), tokens=st.integers(1, 12), seed=st.integers(0, 1000))
def test_quantised_features_are_close_and_alone_in_the_batch(
    toy_encoders: tuple[Path, Path], batch: int, tokens: int, seed: int
) -> None:
    import onnxruntime

    sessions = [onnxruntime.InferenceSession(str(path)) for path in toy_encoders]
    ids = np.random.default_rng(seed).integers(0, 200, (batch, tokens))
    full, small = (session.run(None, {"token_ids": ids})[0] for session in sessions)
    cosine = (unit(full) * unit(small)).sum(1)
    assert cosine.min() > 0.9993
    alone = np.concatenate([sessions[1].run(None, {"token_ids": row[None]})[0] for row in ids])
    assert np.allclose(alone, small, rtol=1e-5, atol=1e-5 * np.abs(small).max())


@pytest.mark.slow
def test_cut_text_tower_gives_what_the_whole_one_gives() -> None:
    from robustzs_training.lite.text_layers import finish, store_states
    from robustzs_training.lite.towers import MODEL_CONFIG, encode_sentences, tokenize
    from robustzs_training.models import build_model

    torch.manual_seed(0)
    model = build_model(MODEL_CONFIG)
    sentences = ["a photo of a cat.", "tench", "a small brown bird on a branch of an old tree"]
    with torch.inference_mode():
        whole = model.text(tokenize(sentences))
    stored = store_states(model.text, sentences, 1)
    with torch.inference_mode():
        states, mask = stored.padded(np.array([2, 0, 1]))
        cut = finish(model.text, states.float(), mask, 1)[[1, 2, 0]]
    assert torch.nn.functional.cosine_similarity(whole, cut).min() > 0.999
    assert np.allclose(encode_sentences(model.text, sentences), whole.numpy(), atol=1e-5)


@pytest.mark.slow
def test_lite0_of_the_package_is_timms() -> None:
    from robustzs_training.lite.towers import imagenet_classifier, imagenet_head, pooled_features

    weight, bias = imagenet_head()
    assert weight.shape == (1000, 1280)
    pixels = np.zeros((2, 3, 224, 224), np.uint8)
    with torch.inference_mode():
        logits = imagenet_classifier()(torch.full((2, 3, 224, 224), -1.0)).numpy()
    assert np.allclose(pooled_features(pixels) @ weight.T + bias, logits, atol=1e-4)


@pytest.mark.slow
def test_a_saved_build_comes_back_bit_for_bit(tmp_path: Path) -> None:
    from robustzs_training.lite.bundle import TEXT_PREFIX, load_build, save_build, trained_tensors
    from robustzs_training.lite.measure import Calibration
    from robustzs_training.lite.towers import MODEL_CONFIG
    from robustzs_training.models import build_model

    torch.manual_seed(0)
    model = build_model(MODEL_CONFIG)
    with torch.no_grad():
        layer = model.text.transformer.encoder.layer[5].output.dense.weight
        layer.copy_(layer.half() * 1.5)
    names = trained_tensors(model)
    trained = f"{TEXT_PREFIX}encoder.layer.5.output.dense.weight"
    assert names[trained].dtype == torch.float16
    assert [name for name in names if name.startswith(TEXT_PREFIX)] == [trained]
    calibration = Calibration(
        logit_scale=20.0, temperature=1.5, theta=0.4, low_confidence=0.2, rejection=0.1
    )
    save_build(tmp_path, model, calibration, {"model": "test"})
    again, found, card = load_build(tmp_path)
    state = again.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert found == calibration
    assert card == {"model": "test"}
    assert float(again.logit_scale.detach().exp()) == pytest.approx(20.0)
