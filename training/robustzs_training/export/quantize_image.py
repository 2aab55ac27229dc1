"""A static int8 form of a convolutional image tower, by ONNX Runtime's own quantiser.

Weights get one scale for each output channel, activations one for each tensor, fixed beforehand
from pictures (the mean over pictures of their smallest and largest value). So a picture's features
do not depend on what else is in its batch, as they do with dynamically quantised activations.

Rounding moves the mean of a layer's outputs, and in a deep tower these shifts add up. Each layer's
bias takes its shift away, measured on the same pictures, layer by layer on what the rounded layers
before it give (empirical bias correction: M. Nagel et al., "Data-free quantization through weight
equalization and bias correction", ICCV 2019, section 4.2). This moves nothing into floats: the
graph costs what it costs without.

The first convolution stays in float32, so that no level of a pixel is lost, and so does the head
behind the pooling, which costs next to nothing.
"""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections import ChainMap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from robustzs.backends.onnx import load_quantisers
from robustzs.bundle.manifest import Precision
from robustzs.errors import ExportError
from robustzs_training.export.encoders import ImagePrecisions

Float32Array = npt.NDArray[np.float32]

MIN_PICTURES = 32
"""Fewer say too little about the range of activations."""
N_PICTURES = 160
"""What the command takes of a folder."""
_N_HELD_OUT = 16
_N_FOR_BIASES = 32  # all activations of a layer are in memory at once, twice
_LEVELS = 127  # ONNX Runtime's symmetric int8 leaves -128 out
_REMEDY = "ship this tower in fp32; int8 is for towers made of convolutions"


def int8_image_precisions(pixels: Float32Array, *, default: Precision = "fp32") -> ImagePrecisions:
    """What ``export_open_clip_model`` takes to ship an int8 image encoder beside the float32 one.

    Args:
        pixels: float32 ``[n, 3, H, W]`` in [0, 1]: at least `MIN_PICTURES` pictures as the model
            sees them, of the kind that it will see, none of them held out for measurements. Some
            of them (an eighth, at most 16) are kept from the calibration, to prove its result.
        default: What the bundle uses unless another precision is asked for.

    Raises:
        ExportError: Too few pictures.
    """
    if len(pixels) < MIN_PICTURES:
        raise ExportError(
            f"{len(pixels)} pictures are too few to calibrate int8 activations",
            hint=f"give at least {MIN_PICTURES} of the kind that will be classified",
        )
    n_probes = min(_N_HELD_OUT, len(pixels) // 8)
    seen = np.ascontiguousarray(pixels[:-n_probes])
    return ImagePrecisions(
        quantisers={"int8": lambda source, target: quantize_image_encoder(source, target, seen)},
        probes=np.ascontiguousarray(pixels[-n_probes:]),
        default=default,
    )


def quantize_image_encoder(source: Path, destination: Path, pixels: Float32Array) -> None:
    """Read a float32 ``image_encoder.onnx`` and write its static int8 form.

    Args:
        source: Graph ``pixels`` ``[batch, 3, H, W]`` -> ``image_features`` ``[batch, D]``.
        destination: File to write; the float32 graph is left alone.
        pixels: Calibration pictures ``[n, 3, H, W]`` in [0, 1].

    Raises:
        ExportError: The tower is not made of convolutions, or ONNX Runtime cannot quantise it.
    """
    import onnx

    ort = load_quantisers()
    with _quiet(), tempfile.TemporaryDirectory() as folder:
        prepared, calibrated = Path(folder) / "prepared.onnx", Path(folder) / "int8.onnx"
        try:
            model = _prepared(source, prepared)
            first, *others = _convolutions(model, source.name)
            correct_biases(model, pixels[:_N_FOR_BIASES], others)
            onnx.save(model, str(prepared))
            ort.quantize_static(
                str(prepared),
                str(calibrated),
                _Reader(model.graph.input[0].name, pixels),
                quant_format=ort.QuantFormat.QDQ,
                op_types_to_quantize=["Conv", "Add", "Clip", "Relu"],
                nodes_to_exclude=[first],
                per_channel=True,
                activation_type=ort.QuantType.QUInt8,
                weight_type=ort.QuantType.QInt8,
                calibrate_method=ort.CalibrationMethod.MinMax,
                extra_options={"WeightSymmetric": True, "CalibMovingAverage": True},
            )
            quantised = onnx.load(str(calibrated))
        except ExportError:
            raise
        except Exception as error:  # onnxruntime's own errors share no base class
            raise ExportError(
                f"{source.name} cannot be quantised to int8: {_last_line(error)}", hint=_REMEDY
            ) from error
    _plain(quantised, like=model)
    onnx.save(quantised, str(destination))


@torch.no_grad()
def correct_biases(model: Any, pixels: Float32Array, names: list[str]) -> None:
    """Round the weights of layers to their levels, and move their biases by what that shifts.

    The graph is walked once, with the exact and with the rounded weights side by side: the bias of
    a layer is moved by the difference between the mean of its exact outputs and the mean of the
    outputs of its rounded weights on rounded inputs, per channel.

    Args:
        model: An ``onnx.ModelProto``, changed in place.
        pixels: Pictures ``[n, 3, H, W]``.
        names: Of ``Conv`` nodes with constant weights.

    Raises:
        EvaluationError: An operator without counterpart in torch.
    """
    from onnx import numpy_helper

    from robustzs_training.evaluation.deployed.graph import apply, constants_of, nodes_of

    constants, nodes = constants_of(model), nodes_of(model)
    written = {tensor.name: tensor for tensor in model.graph.initializer}
    last_use = {name: place for place, node in enumerate(nodes) for name in node.inputs}
    start = {model.graph.input[0].name: torch.from_numpy(pixels)}
    exact, rounded = dict(start), dict(start)
    exact_values, rounded_values = ChainMap(exact, constants), ChainMap(rounded, constants)
    for place, (node, proto) in enumerate(zip(nodes, model.graph.node, strict=True)):
        found = apply(node, [exact_values[name] for name in node.inputs])
        inputs = [rounded_values[name] for name in node.inputs]
        if proto.name in names:
            weight = on_levels(inputs[1])
            bias = inputs[2] if len(inputs) > 2 else torch.zeros(len(weight))
            (values,) = apply(node, [inputs[0], weight, bias])
            shift = (found[0] - values).mean(dim=(0, 2, 3))
            rounded[node.outputs[0]] = values + shift.view(1, -1, 1, 1)
            written[node.inputs[1]].CopyFrom(
                numpy_helper.from_array(weight.numpy(), node.inputs[1])
            )
            _set_bias(model, proto, (bias + shift).numpy())
        else:
            rounded.update(zip(node.outputs, apply(node, inputs), strict=False))
        exact.update(zip(node.outputs, found, strict=False))
        for name in {*node.inputs} - constants.keys():
            if last_use[name] == place:
                del exact[name], rounded[name]


def on_levels(weight: torch.Tensor) -> torch.Tensor:
    """A weight ``[C, ...]`` rounded to whole multiples of 1/127 of each channel's largest value."""
    scale = weight.abs().flatten(1).amax(dim=1) / _LEVELS
    scale = torch.where(scale > 0.0, scale, torch.ones_like(scale))
    scale = scale.view(-1, *[1] * (weight.ndim - 1))
    return (weight / scale).round() * scale


def _set_bias(model: Any, node: Any, bias: Float32Array) -> None:
    from onnx import numpy_helper

    name = f"{node.output[0]}.bias"
    model.graph.initializer.append(numpy_helper.from_array(bias, name))
    old = list(node.input[2:])
    del node.input[2:]
    node.input.append(name)
    still_used = {name for each in model.graph.node for name in each.input}
    for tensor in [each for each in model.graph.initializer if each.name in old]:
        if tensor.name not in still_used:
            model.graph.initializer.remove(tensor)


def _prepared(source: Path, target: Path) -> Any:
    """The graph with BatchNorm folded into convolutions and the shapes of all tensors."""
    import onnx

    prepare = load_quantisers().shape_inference.quant_pre_process
    prepare(str(source), str(target), skip_symbolic_shape=True)
    return onnx.load(str(target))


def _convolutions(model: Any, name: str) -> list[str]:
    """Names of the convolutions, first to last.

    Raises:
        ExportError: They hold less than half of the weights: a transformer, for example.
    """
    sizes = {
        tensor.name: int(np.prod(tensor.dims, dtype=np.int64))
        for tensor in model.graph.initializer
        if len(tensor.dims) > 1
    }
    found = [node for node in model.graph.node if node.op_type == "Conv" and node.input[1] in sizes]
    used = {node.input[1] for node in found}
    share = sum(sizes[weight] for weight in used) / max(1, sum(sizes.values()))
    if len(found) < 2 or share < 0.5:
        raise ExportError(
            f"{name} is not made of convolutions: they hold {100 * share:.0f}% of its weights",
            hint=_REMEDY,
        )
    return [node.name for node in found]


def _plain(model: Any, *, like: Any) -> None:
    """Drop what quantising notes beside the graph."""
    del model.metadata_props[:]
    del model.graph.value_info[:]
    used = {node.domain for node in model.graph.node}
    kept = [entry for entry in model.opset_import if not entry.domain or entry.domain in used]
    del model.opset_import[:]
    model.opset_import.extend(kept)
    model.producer_name, model.producer_version = like.producer_name, like.producer_version
    model.graph.name = like.graph.name


class _Reader:
    """Pictures one by one, as ONNX Runtime's quantiser asks for them."""

    def __init__(self, name: str, pixels: Float32Array) -> None:
        self._batches = iter([{name: pixels[i : i + 1]} for i in range(len(pixels))])

    def get_next(self) -> dict[str, Float32Array] | None:
        """The next picture; None after the last."""
        return next(self._batches, None)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the quantiser's advice, which it writes to the root logger."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
