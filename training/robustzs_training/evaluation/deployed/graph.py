"""The twin of an ONNX image tower in torch: the same graph, node by node, with gradients.

Weights are the file's own, in whatever form it stores them; what rounds (levels of 8 bits, short
floats) rounds here, too, and lets gradients pass straight through. What is not modelled is how an
engine sums: its integer kernels and fused operators may differ by a level here and there. How far
the twin is from the engine is measured, not assumed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from robustzs.errors import EvaluationError
from robustzs_training.evaluation.deployed.node import MISSING, Attribute, Inputs, Node, Operator
from robustzs_training.evaluation.deployed.operators import OPERATORS, unknown
from robustzs_training.evaluation.deployed.quantised_operators import (
    BATCH_DEPENDENT,
    QUANTISED,
    nbits_weight,
)
from robustzs_training.evaluation.deployed.straight_through import as_precision

_KNOWN: Mapping[str, Operator] = {**OPERATORS, **QUANTISED}
_NBITS = "com.microsoft:MatMulNBits"
_SHORT = {10: torch.float16, 16: torch.bfloat16}
_NO_FLOATS = frozenset({"Shape", "QuantizeLinear", "DynamicQuantizeLinear", "Equal"})


@dataclass(frozen=True)
class GraphFacts:
    """What an ONNX file is made of.

    Attributes:
        unknown: Kinds of operators that have no counterpart in torch here.
        batch_dependent: A row's features depend on the other rows: scales come from all of them.
        kinds: All kinds of operators.
    """

    unknown: tuple[str, ...]
    batch_dependent: bool
    kinds: frozenset[str]


def facts_of(path: Path) -> GraphFacts:
    """Look at an ONNX file's operators."""
    import onnx

    model = onnx.load(str(path), load_external_data=False)
    kinds = frozenset(_kind(node) for node in model.graph.node)
    kinds |= {f"function {function.name}" for function in model.functions}
    return GraphFacts(
        unknown=tuple(sorted(kinds - {*_KNOWN, _NBITS})),
        batch_dependent=any(kind.rpartition(":")[2] in BATCH_DEPENDENT for kind in kinds)
        or any("DynamicQuantize" in kind for kind in kinds),
        kinds=kinds,
    )


def nodes_of(model: Any) -> list[Node]:
    """The nodes of an ``onnx.ModelProto`` as plain values, in its order."""
    opset = next(each.version for each in model.opset_import if each.domain in ("", "ai.onnx"))
    return [_node(each, opset) for each in model.graph.node]


def constants_of(model: Any) -> dict[str, torch.Tensor]:
    """Its initializers by name, and what stands for an input that is left out."""
    return {"": MISSING, **{each.name: _tensor(each) for each in model.graph.initializer}}


def apply(node: Node, inputs: Inputs) -> tuple[torch.Tensor, ...]:
    """The outputs of a node.

    Raises:
        EvaluationError: It has no counterpart, or it fails on these inputs.
    """
    if node.kind not in _KNOWN:
        raise unknown(node, "any inputs")
    try:
        found = _KNOWN[node.kind](node, inputs)
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        shapes = [list(each.shape) for each in inputs]
        raise EvaluationError(
            f"the twin fails at {node.kind} of {shapes}: {str(error).splitlines()[0]}",
            hint="measure this precision by transfer and by Square, and say so",
        ) from error
    return found if isinstance(found, tuple) else (found,)


class GraphTwin:
    """``pixels`` ``[B, 3, H, W]`` -> raw features ``[B, D]``, differentiable.

    Args:
        path: The ONNX file; external data beside it.
        device: Where to compute.

    Raises:
        EvaluationError: An operator that has no counterpart.
    """

    def __init__(self, path: Path, *, device: torch.device | None = None) -> None:
        import onnx

        self.facts = facts_of(path)
        if self.facts.unknown:
            raise EvaluationError(
                f"no twin of {path.name}: it has {', '.join(self.facts.unknown)}",
                hint="measure this precision by transfer and by Square, and say so",
            )
        self.device = device or torch.device("cpu")
        model = onnx.load(str(path))
        self._values: dict[str, torch.Tensor] = {"": MISSING}
        self._short: dict[str, torch.dtype] = {}
        for tensor in model.graph.initializer:
            self._keep(tensor.name, tensor.data_type, _tensor(tensor))
        nodes = nodes_of(model)
        self._input = next(i.name for i in model.graph.input if i.name not in self._values)
        (self._output,) = (each.name for each in model.graph.output)
        self._nodes = self._simplified(nodes)
        self._last_use = {
            name: place for place, node in enumerate(self._nodes) for name in node.inputs if name
        }
        self._values = {name: value.to(self.device) for name, value in self._values.items()}

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        """Encode a batch; image by image where a row would depend on the others."""
        if self.facts.batch_dependent and len(pixels) > 1:
            return torch.cat([self._run(image[None]) for image in pixels])
        return self._run(pixels)

    def _run(self, pixels: torch.Tensor) -> torch.Tensor:
        values: dict[str, torch.Tensor] = {self._input: pixels.float()}
        for place, node in enumerate(self._nodes):
            inputs = [
                values[name] if name in values else self._values[name] for name in node.inputs
            ]
            for name, found in zip(node.outputs, self._apply(node, inputs), strict=False):
                values[name] = found
            for name in node.inputs:
                if name in values and self._last_use[name] == place and name != self._output:
                    del values[name]
        return values[self._output].float()

    def _apply(self, node: Node, inputs: Inputs) -> tuple[torch.Tensor, ...]:
        outputs = apply(node, inputs)
        if any(node.outputs[len(outputs) :]):
            raise unknown(node, f"{len(node.outputs)} outputs")
        return tuple(
            as_precision(value, self._short[name]) if name in self._short else value
            for name, value in zip(node.outputs, outputs, strict=False)
        )

    # ---- reading ---------------------------------------------------------------------------------

    def _keep(self, name: str, data_type: int, value: torch.Tensor) -> None:
        if data_type in _SHORT:
            self._short[name] = _SHORT[data_type]
            value = value.float()
        self._values[name] = value

    @torch.no_grad()
    def _simplified(self, nodes: Sequence[Node]) -> list[Node]:
        """What depends on weights alone is computed once, such as weights themselves."""
        left = []
        for given in nodes:
            node = self._unpacked(given) if given.kind == _NBITS else given
            short = self._type_of(node)
            if short is not None:
                self._short.update(dict.fromkeys(node.outputs, short))
            if all(name in self._values for name in node.inputs):
                inputs = [self._values[name] for name in node.inputs]
                self._values.update(zip(node.outputs, self._apply(node, inputs), strict=False))
            else:
                left.append(node)
                if node is not given and len(node.outputs) == 1 and given.outputs != node.outputs:
                    left.append(self._plus_bias(given, node))
        return left

    def _unpacked(self, node: Node) -> Node:
        """``MatMulNBits`` as a product with its real weight."""
        names = [*node.inputs, *[""] * (6 - len(node.inputs))]
        weight = f"{node.outputs[0]}.weight"
        self._values[weight] = nbits_weight(node, [self._values.get(n, MISSING) for n in names])
        output = node.outputs[0] if not names[5] else f"{node.outputs[0]}.product"
        return Node("MatMul", (node.inputs[0], weight), (output,), opset=node.opset)

    @staticmethod
    def _plus_bias(given: Node, product: Node) -> Node:
        return Node("Add", (product.outputs[0], given.inputs[5]), given.outputs, opset=given.opset)

    def _type_of(self, node: Node) -> torch.dtype | None:
        """The short float that a node's outputs have, if they have one."""
        if node.kind == "Cast":
            return _SHORT.get(node.whole("to"))
        if node.kind in _NO_FLOATS:
            return None
        which = node.inputs[1:2] if node.kind == "DequantizeLinear" else node.inputs
        return next((self._short[name] for name in which if name in self._short), None)


def _kind(node: Any) -> str:
    return node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}:{node.op_type}"


def _node(node: Any, opset: int) -> Node:
    from onnx import helper

    attributes: dict[str, Attribute] = {}
    for attribute in node.attribute:
        value = helper.get_attribute_value(attribute)
        if isinstance(value, bytes):
            value = value.decode()
        elif hasattr(value, "data_type"):
            value = _tensor(value)
        attributes[attribute.name] = value
    return Node(_kind(node), tuple(node.input), tuple(node.output), attributes, opset)


def _tensor(tensor: Any) -> torch.Tensor:
    import numpy as np
    from onnx import numpy_helper

    array = numpy_helper.to_array(tensor)
    if tensor.data_type in _SHORT:
        array = array.astype(np.float32)
    return torch.from_numpy(np.array(array, copy=True))
