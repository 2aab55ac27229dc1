"""The bundle with eyes for colour, in several precisions, and pictures near its boundaries."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    quantize_dynamic,
    quantize_static,
)
from robustzs_training.evaluation.base import Victim
from robustzs_training.evaluation.deployed import DeployedVariant, Variant, twin_of

from robustzs.bundle.store import Bundle
from robustzs.labels import LabelSet
from robustzs.labels.templates import TemplateSet, get_templates
from tests.factories import (
    COLOURS,
    IMAGE_SIZE,
    LEAVES,
    VOCABULARY,
    make_bundle,
    write_manifest,
)

PLAIN: TemplateSet = get_templates("{}")
LABELS = LabelSet.parse(",".join(LEAVES))


class _Calibration(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self) -> None:
        draw = np.random.default_rng(0)
        size = (2, 3, IMAGE_SIZE, IMAGE_SIZE)
        self.left: Iterator[dict[str, Any]] = iter(
            [{"pixels": self._pictures(draw, size)} for _ in range(12)]
        )

    @staticmethod
    def _pictures(
        draw: np.random.Generator, size: tuple[int, int, int, int]
    ) -> npt.NDArray[np.float32]:
        """Noise around whole colours: the mean of noise alone is grey and teaches one level."""
        colours = draw.integers(0, 2, (*size[:2], 1, 1)).astype(np.float32)
        return 0.8 * colours + 0.2 * draw.random(size, dtype=np.float32)

    def get_next(self) -> dict[str, Any] | None:
        return next(self.left, None)


def levels(source: Path, target: Path, form: str) -> Path:
    """The same image tower in 8 bits: ``dynamic``, ``qdq``, ``qdq-channels`` or ``qoperator``."""
    if form == "dynamic":
        quantize_dynamic(source, target)
    else:
        quantize_static(
            source,
            target,
            _Calibration(),
            quant_format=QuantFormat.QOperator if form == "qoperator" else QuantFormat.QDQ,
            per_channel=form.endswith("channels"),
        )
    return target


def halved(source: Path, target: Path) -> Path:
    """The same image tower in float16, but for its input and output."""
    model = onnx.load(source)
    graph = model.graph
    for tensor in graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            half = numpy_helper.to_array(tensor).astype(np.float16)
            tensor.CopyFrom(numpy_helper.from_array(half, tensor.name))
    for node in graph.node:
        names = ["pixels.half" if name == "pixels" else name for name in node.input]
        outputs = ["features.half" if name == "image_features" else name for name in node.output]
        del node.input[:], node.output[:]
        node.input.extend(names)
        node.output.extend(outputs)
    first = helper.make_node("Cast", ["pixels"], ["pixels.half"], to=TensorProto.FLOAT16)
    last = helper.make_node("Cast", ["features.half"], ["image_features"], to=TensorProto.FLOAT)
    nodes = [first, *graph.node, last]
    del graph.node[:]
    graph.node.extend(nodes)
    onnx.save(model, target)
    return target


def moved_text(source: Path, target: Path) -> Path:
    """A text tower whose word vectors lie on a coarse grid, as 8 bits make them, only coarser."""
    model = onnx.load(source)
    for tensor in model.graph.initializer:
        if tensor.name == "table":
            table = numpy_helper.to_array(tensor)
            assert len(table) == len(VOCABULARY)
            step = np.abs(table).max() / 3.0
            coarse = (np.rint(table / step) * step).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(coarse, "table"))
    onnx.save(model, target)
    return target


def precisions(folder: Path, form: str = "qdq") -> Bundle:
    """A bundle with image encoders fp32, fp16 and int8, and text encoders fp32 and int8."""
    make_bundle(folder)
    image = folder / "image_encoder.onnx"
    levels(image, folder / "image_encoder.int8.onnx", form)
    halved(image, folder / "image_encoder.fp16.onnx")
    moved_text(folder / "text_encoder.onnx", folder / "text_encoder.int8.onnx")
    write_manifest(
        folder,
        image_encoders={
            "fp32": "image_encoder.onnx",
            "fp16": "image_encoder.fp16.onnx",
            "int8": "image_encoder.int8.onnx",
        },
        text_encoders={"fp32": "text_encoder.onnx", "int8": "text_encoder.int8.onnx"},
    )
    return Bundle.load(folder)


@dataclass(frozen=True)
class Pictures:
    """Noisy pictures whose colour lies between two kinds; an evaluation set in memory."""

    values: npt.NDArray[np.uint8]
    of: tuple[str, ...]
    name: str = "colours"
    digest: str = "0" * 64

    @property
    def keys(self) -> Sequence[str]:
        return [str(row) for row in range(len(self.of))]

    @property
    def labels(self) -> LabelSet:
        return LABELS

    @property
    def right(self) -> npt.NDArray[np.bool_]:
        return np.asarray([[leaf == name for leaf in LEAVES] for name in self.of])

    @property
    def truth(self) -> Sequence[str]:
        return self.of

    @property
    def description(self) -> Mapping[str, Any]:
        return {}

    def pixels(self, rows: npt.NDArray[np.int64]) -> torch.Tensor:
        return torch.from_numpy(self.values[rows].astype(np.float32) / np.float32(255.0))


def pictures(n: int = 12, *, seed: int = 0, nearness: float = 0.4) -> Pictures:
    """``n`` pictures; ``nearness`` 0.5 is half way to another kind of the same family."""
    draw = np.random.default_rng(seed)
    values, names = [], []
    for row in range(n):
        kind = LEAVES[row % len(LEAVES)]
        other = LEAVES[(row % len(LEAVES)) ^ 1]
        share = draw.uniform(0.0, 2.0 * nearness)
        colour = (1 - share) * np.asarray(COLOURS[kind]) + share * np.asarray(COLOURS[other])
        colour = 0.15 + 0.7 * colour
        noise = 0.05 * draw.standard_normal((3, IMAGE_SIZE, IMAGE_SIZE))
        image = np.clip(colour[:, None, None] + noise, 0.0, 1.0)
        values.append(np.rint(255.0 * image).astype(np.uint8))
        names.append(kind)
    return Pictures(np.stack(values), tuple(names))


def deployed(bundle: Bundle, image: str = "fp32", text: str = "fp32") -> DeployedVariant:
    """A variant over the leaves."""
    variant = Variant(image=image, text=text)  # type: ignore[arg-type]
    return DeployedVariant(bundle, LABELS, PLAIN, variant, threads=1)


def parent_of(bundle: Bundle) -> Victim:
    """A float32 torch model, independent of any quantised graph."""
    found = deployed(bundle)
    return twin_of(found, pictures(2).pixels(np.arange(2))).victim
