"""Small real things for tests: bundles with real ONNX graphs, trees, pictures.

The tiny model has eyes for colour only: image features follow the mean colour of a picture, and
every word of its vocabulary has a colour of its own. So tests can say what they mean: a picture of
dog's colour is a dog.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from robustzs.bundle.manifest import BundleManifest

Colour = tuple[float, float, float]

EMBED_DIM = 16
IMAGE_SIZE = 32
CONTEXT_LENGTH = 16

# Dogs are reddish, cats bluish, vehicles greenish; kinds of one family lie close together.
COLOURS: dict[str, Colour] = {
    "red": (1.0, 0.0, 0.0),
    "green": (0.0, 1.0, 0.0),
    "blue": (0.0, 0.0, 1.0),
    "white": (1.0, 1.0, 1.0),
    "black": (0.0, 0.0, 0.0),
    "yellow": (1.0, 1.0, 0.0),
    "labrador": (1.0, 0.3, 0.1),
    "poodle": (1.0, 0.1, 0.3),
    "tabby": (0.3, 0.1, 1.0),
    "siamese": (0.1, 0.3, 1.0),
    "ambulance": (0.3, 1.0, 0.1),
    "jeep": (0.1, 1.0, 0.3),
    "dog": (1.0, 0.2, 0.2),
    "cat": (0.2, 0.2, 1.0),
    "animal": (1.0, 0.2, 1.0),
    "vehicle": (0.2, 1.0, 0.2),
}
WORDS = ("a", "an", "photo", "picture", "of", "the", ".", ",", "in", "and")
SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
VOCABULARY = (*SPECIALS, *WORDS, *COLOURS, *(f"##{c}" for c in "abcdefghijklmnopqrstuvwxyz"))

TREE_YAML = """\
thing:
  animal:
    dog: [labrador, poodle]
    cat: [tabby, siamese]
  vehicle: [ambulance, jeep]
"""
LEAVES = ("labrador", "poodle", "tabby", "siamese", "ambulance", "jeep")


def make_bundle(folder: Path, *, seed: int = 0, **changes: Any) -> Path:
    """Write a tiny but complete bundle into ``folder`` and return it.

    Args:
        folder: is created.
        seed: of the weights.
        changes: fields of ``BundleManifest`` that differ from the usual.
    """
    folder.mkdir(parents=True)
    random = np.random.default_rng(seed).standard_normal((EMBED_DIM, 3))
    basis = (2.0 * np.linalg.qr(random)[0].T).astype(np.float32)
    onnx.save(image_graph(basis, seed), folder / "image_encoder.onnx")
    onnx.save(text_graph(basis, seed), folder / "text_encoder.onnx")
    wordpiece().save(str(folder / "tokenizer.json"))
    (folder / "README.md").write_text("# tiny\n\nA model with eyes for colour only.\n")
    write_manifest(folder, **changes)
    return folder


def make_two_precisions(folder: Path, other: Path) -> Path:
    """Write a tiny bundle whose int8 image encoder is that of another: no mistaking which ran.

    Args:
        folder: is created.
        other: a tiny bundle of another seed.
    """
    make_bundle(folder)
    (folder / "image_encoder.int8.onnx").write_bytes((other / "image_encoder.onnx").read_bytes())
    encoders = {"fp32": "image_encoder.onnx", "int8": "image_encoder.int8.onnx"}
    write_manifest(folder, image_encoders=encoders)
    return folder


def write_manifest(folder: Path, **changes: Any) -> None:
    """Write ``bundle.json`` for the files that lie in ``folder``."""
    fields: dict[str, Any] = {
        "name": "tiny",
        "created_with": "tests",
        "source": {"description": "made by tests/factories.py"},
        "embed_dim": EMBED_DIM,
        "preprocess": {"image_size": (IMAGE_SIZE, IMAGE_SIZE)},
        "mean": (0.5, 0.5, 0.5),
        "std": (0.5, 0.5, 0.5),
        "logit_scale": 30.0,
        "tokenizer": {
            "kind": "wordpiece",
            "context_length": CONTEXT_LENGTH,
            "fixed_length": False,
            "pad_id": VOCABULARY.index("[PAD]"),
        },
        "image_encoders": {"fp32": "image_encoder.onnx"},
        "text_encoders": {"fp32": "text_encoder.onnx"},
        "opset": 18,
        "licences": [{"name": "Apache-2.0", "covers": "everything"}],
        "files": {
            path.name: {
                "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
                "size": path.stat().st_size,
            }
            for path in sorted(folder.iterdir())
            if path.name != "bundle.json"
        },
    }
    manifest = BundleManifest.model_validate({**fields, **changes})
    text = json.dumps(manifest.model_dump(mode="json"), indent=2, sort_keys=True) + "\n"
    (folder / "bundle.json").write_text(text, encoding="utf-8")


def image_graph(basis: npt.NDArray[np.float32], seed: int = 0) -> onnx.ModelProto:
    """``pixels -> image_features``: the mean colour through ``basis``, and a little texture."""
    rng = np.random.default_rng(seed + 1)
    kernel = (0.2 * rng.standard_normal((8, 3, 3, 3))).astype(np.float32)
    mixing = (0.1 * rng.standard_normal((8, basis.shape[1]))).astype(np.float32)
    nodes = [
        helper.make_node("Sub", ["pixels", "half"], ["centred"]),
        helper.make_node("GlobalAveragePool", ["centred"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["colour"], axis=1),
        helper.make_node("MatMul", ["colour", "basis"], ["from_colour"]),
        helper.make_node("Conv", ["centred", "kernel"], ["map"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["map"], ["active"]),
        helper.make_node("GlobalAveragePool", ["active"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["texture"], axis=1),
        helper.make_node("MatMul", ["texture", "mixing"], ["from_texture"]),
        helper.make_node("Add", ["from_colour", "from_texture"], ["image_features"]),
    ]
    weights = {"half": np.float32(0.5), "basis": basis, "kernel": kernel, "mixing": mixing}
    pixels = helper.make_tensor_value_info(
        "pixels", TensorProto.FLOAT, ["batch", 3, IMAGE_SIZE, IMAGE_SIZE]
    )
    return _model(nodes, weights, pixels, "image_features", basis.shape[1])


def text_graph(basis: npt.NDArray[np.float32], seed: int = 0) -> onnx.ModelProto:
    """``token_ids -> text_features``: the mean embedding of all tokens that are not padding."""
    rng = np.random.default_rng(seed + 2)
    table = (0.02 * rng.standard_normal((len(VOCABULARY), basis.shape[1]))).astype(np.float32)
    for word, colour in COLOURS.items():
        table[VOCABULARY.index(word)] += (np.asarray(colour, np.float32) - 0.5) @ basis
    nodes = [
        helper.make_node("Gather", ["table", "token_ids"], ["embedded"]),
        helper.make_node("Equal", ["token_ids", "pad"], ["is_pad"]),
        helper.make_node("Not", ["is_pad"], ["is_token"]),
        helper.make_node("Cast", ["is_token"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["mask", "last"], ["weights"]),
        helper.make_node("Mul", ["embedded", "weights"], ["kept"]),
        helper.make_node("ReduceSum", ["kept", "one"], ["summed"], keepdims=0),
        helper.make_node("ReduceSum", ["mask", "one"], ["count"], keepdims=1),
        helper.make_node("Div", ["summed", "count"], ["text_features"]),
    ]
    weights = {
        "table": table,
        "pad": np.int64(VOCABULARY.index("[PAD]")),
        "last": np.asarray([2], np.int64),
        "one": np.asarray([1], np.int64),
    }
    ids = helper.make_tensor_value_info("token_ids", TensorProto.INT64, ["batch", "length"])
    return _model(nodes, weights, ids, "text_features", basis.shape[1])


def _model(
    nodes: list[onnx.NodeProto],
    weights: Mapping[str, Any],
    source: onnx.ValueInfoProto,
    output: str,
    embed_dim: int,
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        output,
        [source],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["batch", embed_dim])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()],
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9, producer_name="tests"
    )
    onnx.checker.check_model(model, full_check=True)
    return model


def wordpiece() -> Tokenizer:
    """A BERT tokenizer of a few words."""
    vocabulary = {word: index for index, word in enumerate(VOCABULARY)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        special_tokens=[(name, vocabulary[name]) for name in ("[CLS]", "[SEP]")],
    )
    return tokenizer


def colour_tokens() -> dict[int, Colour]:
    """Token id -> colour, for ``FakeBackend``."""
    return {VOCABULARY.index(word): colour for word, colour in COLOURS.items()}


def picture(word: str, *, size: tuple[int, int] = (48, 40), seed: int = 0) -> Image.Image:
    """A picture in the colour of a word, slightly noisy; ``size`` is width, height."""
    rng = np.random.default_rng(seed)
    colour = np.asarray(COLOURS[word]) * 255.0
    noisy = colour + rng.normal(0.0, 8.0, (size[1], size[0], 3))
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


def picture_bytes(word: str, *, format: str = "PNG", **options: Any) -> bytes:
    """The bytes of a file with ``picture(word)``."""
    buffer = io.BytesIO()
    picture(word, **options).save(buffer, format)
    return buffer.getvalue()
