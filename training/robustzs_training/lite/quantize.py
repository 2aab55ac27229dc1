"""Stores the weights of a text graph as int8; activations stay float32.

Weight-only and per channel: a sentence's features do not depend on what else is in the batch (as
they do with dynamically quantised activations). Matrices become ``MatMulNBits`` with 8 bits
(com.microsoft; blocks of 128 inputs, each with its own scale), which ONNX Runtime multiplies
without unpacking the whole matrix; the word embeddings become an int8 table with one scale per
word, of which only the looked-up rows are unpacked.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

BLOCK_SIZE = 128
_MIN_ELEMENTS = 16_384
_MICROSOFT = "com.microsoft"


def quantize_text_encoder(source: Path, destination: Path) -> None:
    """Read a float32 ``text_encoder.onnx`` and write its int8 weight-only form.

    Args:
        source: Graph ``token_ids`` ``[batch, T]`` -> ``text_features`` ``[batch, D]``.
        destination: File to write; the float32 graph is left alone.
    """
    import onnx
    from onnx import helper, numpy_helper

    model = onnx.load(str(source))
    graph = model.graph
    constants = {i.name: i for i in graph.initializer}
    uses: dict[str, int] = {}
    for node in graph.node:
        for name in node.input:
            uses[name] = uses.get(name, 0) + 1
    nodes: list[Any] = []
    for node in graph.node:
        weight = _weight_name(node)
        tensor = constants.get(weight or "")
        if weight is None or tensor is None or uses[weight] > 1:
            nodes.append(node)
            continue
        values = numpy_helper.to_array(tensor)
        if values.dtype != np.float32 or values.ndim != 2 or values.size < _MIN_ELEMENTS:
            nodes.append(node)
            continue
        replace = _gather if node.op_type == "Gather" else _matmul
        new_nodes, new_tensors = replace(node, weight, values)
        if not new_nodes:
            nodes.append(node)
            continue
        nodes += new_nodes
        graph.initializer.remove(tensor)
        graph.initializer.extend(new_tensors)
    del graph.node[:]
    graph.node.extend(nodes)
    if not any(opset.domain == _MICROSOFT for opset in model.opset_import):
        model.opset_import.append(helper.make_opsetid(_MICROSOFT, 1))
    del graph.value_info[:]
    onnx.save(model, str(destination))


def _weight_name(node: Any) -> str | None:
    if node.op_type == "Gather":
        return str(node.input[0])
    if node.op_type in {"MatMul", "Gemm"}:
        return str(node.input[1])
    return None


def _matmul(node: Any, name: str, values: npt.NDArray[np.float32]) -> tuple[list[Any], list[Any]]:
    """``MatMulNBits`` for ``MatMul(x, W)`` or ``Gemm(x, W, transB=1)`` without bias."""
    from onnx import helper, numpy_helper

    if node.op_type == "Gemm":
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        plain = attributes.get("alpha", 1.0) == 1.0 and not attributes.get("transA", 0)
        if len(node.input) > 2 or not plain:
            return [], []
        rows = values if attributes.get("transB", 0) else values.T
    else:
        rows = values.T
    n_out, n_in = rows.shape  # [N, K]
    if n_in % BLOCK_SIZE:
        return [], []
    blocks = rows.reshape(n_out, n_in // BLOCK_SIZE, BLOCK_SIZE)
    scales = np.maximum(np.abs(blocks).max(-1), 1e-12) / 127.0
    levels = np.clip(np.rint(blocks / scales[..., None]), -127, 127).astype(np.int16)
    packed = (levels + 128).astype(np.uint8)  # zero point 128, the operator's default
    quantised = helper.make_node(
        "MatMulNBits",
        [node.input[0], f"{name}.int8", f"{name}.scales"],
        list(node.output),
        name=node.name,
        domain=_MICROSOFT,
        K=n_in,
        N=n_out,
        bits=8,
        block_size=BLOCK_SIZE,
    )
    tensors = [
        numpy_helper.from_array(packed, f"{name}.int8"),
        numpy_helper.from_array(scales.astype(np.float32).reshape(-1), f"{name}.scales"),
    ]
    return [quantised], tensors


def _gather(node: Any, name: str, values: npt.NDArray[np.float32]) -> tuple[list[Any], list[Any]]:
    """Look up int8 rows and their scales, then multiply."""
    from onnx import TensorProto, helper, numpy_helper

    if any(a.name == "axis" and a.i != 0 for a in node.attribute):
        return [], []
    scales = np.maximum(np.abs(values).max(1, keepdims=True), 1e-12) / 127.0
    levels = np.clip(np.rint(values / scales), -127, 127).astype(np.int8)
    ids, out = node.input[1], node.output[0]
    nodes = [
        helper.make_node("Gather", [f"{name}.int8", ids], [f"{out}.int8"], axis=0),
        helper.make_node("Cast", [f"{out}.int8"], [f"{out}.float"], to=TensorProto.FLOAT),
        helper.make_node("Gather", [f"{name}.scales", ids], [f"{out}.scale"], axis=0),
        helper.make_node("Mul", [f"{out}.float", f"{out}.scale"], [out], name=node.name),
    ]
    tensors = [
        numpy_helper.from_array(levels, f"{name}.int8"),
        numpy_helper.from_array(scales.astype(np.float32), f"{name}.scales"),
    ]
    return nodes, tensors
