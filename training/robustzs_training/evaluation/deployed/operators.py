"""ONNX's operators in torch, as far as image towers use them.

Meanings: https://onnx.ai/onnx/operators/. A form that is not known is an error, never a guess: a
twin that computes something else would be attacked in vain.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch.nn import functional as F

from robustzs.errors import EvaluationError
from robustzs_training.evaluation.deployed.node import Inputs, Node, Operator, given
from robustzs_training.evaluation.deployed.straight_through import passing

_TYPES = {1: torch.float32, 6: torch.int32, 7: torch.int64, 9: torch.bool, 11: torch.float64}
_SHORT = {10: torch.float16, 16: torch.bfloat16}
_BYTES = {2: torch.uint8, 3: torch.int8}


def unknown(node: Node, what: str) -> EvaluationError:
    """An operator in a form that the twin does not know."""
    return EvaluationError(
        f"{node.kind} with {what} has no counterpart in the twin",
        hint="measure this precision by transfer and by Square, and say so",
    )


# ---- layers --------------------------------------------------------------------------------------


def convolve(
    node: Node, values: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
) -> torch.Tensor:
    """Convolution in two dimensions."""
    if values.ndim != 4 or str(node.get("auto_pad", "NOTSET")) != "NOTSET":
        raise unknown(node, f"auto_pad or {values.ndim - 2} dimensions")
    top, left, bottom, right = node.list("pads") or [0, 0, 0, 0]
    padding = (top, left)
    if (top, left) != (bottom, right):
        values, padding = F.pad(values, (left, right, top, bottom)), (0, 0)
    return F.conv2d(
        values,
        weight,
        bias,
        stride=node.list("strides") or [1, 1],
        padding=list(padding),
        dilation=node.list("dilations") or [1, 1],
        groups=node.whole("group", 1),
    )


def matmul(node: Node, x: Inputs) -> torch.Tensor:
    """Product of matrices."""
    del node
    return torch.matmul(x[0], x[1])


def _conv(node: Node, x: Inputs) -> torch.Tensor:
    return convolve(node, x[0], x[1], given(x, 2))


def _gemm(node: Node, x: Inputs) -> torch.Tensor:
    left = x[0].T if node.whole("transA") else x[0]
    right = x[1].T if node.whole("transB") else x[1]
    found = float(node.get("alpha", 1.0)) * (left @ right)
    bias = given(x, 2)
    return found if bias is None else found + float(node.get("beta", 1.0)) * bias


def _layer_norm(node: Node, x: Inputs) -> torch.Tensor:
    axis = node.whole("axis", -1) % x[0].ndim
    shape = list(x[0].shape[axis:])
    return F.layer_norm(x[0], shape, x[1], given(x, 2), float(node.get("epsilon", 1e-5)))


def _batch_norm(node: Node, x: Inputs) -> torch.Tensor:
    if node.whole("training_mode"):
        raise unknown(node, "training_mode")
    return F.batch_norm(x[0], x[3], x[4], x[1], x[2], eps=float(node.get("epsilon", 1e-5)))


def _softmax(node: Node, x: Inputs) -> torch.Tensor:
    return x[0].softmax(dim=node.whole("axis", -1))


def _gelu(node: Node, x: Inputs) -> torch.Tensor:
    return F.gelu(x[0], approximate=str(node.get("approximate", "none")))


def _max_pool(node: Node, x: Inputs) -> torch.Tensor:
    pads = node.list("pads") or [0, 0, 0, 0]
    if pads[:2] != pads[2:] or str(node.get("auto_pad", "NOTSET")) != "NOTSET":
        raise unknown(node, "uneven padding")
    kernel = node.list("kernel_shape") or [1, 1]
    strides = node.list("strides") or [1, 1]
    dilations, ceil = node.list("dilations") or [1, 1], bool(node.whole("ceil_mode"))
    return F.max_pool2d(x[0], kernel, strides, pads[:2], dilations, ceil)


def _average_pool(node: Node, x: Inputs) -> torch.Tensor:
    pads = node.list("pads") or [0, 0, 0, 0]
    if any(pads) or node.list("dilations") not in (None, [1, 1]):
        raise unknown(node, "padding or dilation")
    kernel = node.list("kernel_shape") or [1, 1]
    return F.avg_pool2d(x[0], kernel, node.list("strides") or [1, 1], ceil_mode=False)


# ---- numbers -------------------------------------------------------------------------------------


def _clip(node: Node, x: Inputs) -> torch.Tensor:
    low, high = given(x, 1), given(x, 2)
    if node.opset < 11:
        raise unknown(node, f"opset {node.opset}")
    found = x[0]
    if low is not None:
        found = torch.maximum(found, low.to(found.dtype))
    return found if high is None else torch.minimum(found, high.to(found.dtype))


def _axes(node: Node, x: Inputs) -> list[int] | None:
    axes = given(x, 1)
    return node.list("axes") if axes is None else _ints(axes)


def _reduced(how: Callable[..., torch.Tensor]) -> Operator:
    def reduce(node: Node, x: Inputs) -> torch.Tensor:
        axes = _axes(node, x)
        if axes is None:
            if node.whole("noop_with_empty_axes"):
                return x[0]
            axes = list(range(x[0].ndim))
        return how(x[0], dim=axes, keepdim=bool(node.whole("keepdims", 1)))

    return reduce


def _div(node: Node, x: Inputs) -> torch.Tensor:
    del node
    if x[0].is_floating_point():
        return x[0] / x[1]
    return torch.div(x[0], x[1], rounding_mode="trunc")


def _cast(node: Node, x: Inputs) -> torch.Tensor:
    """Towards short floats nothing happens here: the graph rounds what has such a type."""
    to = node.whole("to")
    values = x[0]
    if to in _SHORT or to == 1:
        return values.float()
    if to in _BYTES or to in (6, 7):
        if values.requires_grad:
            return passing(torch.trunc, values)
        return values.to(_BYTES.get(to) or _TYPES[to])
    if to not in _TYPES:
        raise unknown(node, f"type {to}")
    return values.to(_TYPES[to])


def _each(function: Callable[..., torch.Tensor]) -> Operator:
    return lambda node, x: function(*x)


def _step(function: Callable[[torch.Tensor], torch.Tensor]) -> Operator:
    return lambda node, x: passing(function, x[0])


def _hard_sigmoid(node: Node, x: Inputs) -> torch.Tensor:
    slope, shift = float(node.get("alpha", 0.2)), float(node.get("beta", 0.5))
    return (slope * x[0] + shift).clamp(0.0, 1.0)


def _several(function: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> Operator:
    def fold(node: Node, x: Inputs) -> torch.Tensor:
        del node
        found = x[0]
        for other in x[1:]:
            found = function(found, other)
        return found

    return fold


# ---- shapes --------------------------------------------------------------------------------------


def _ints(values: torch.Tensor) -> list[int]:
    return [int(value) for value in values.reshape(-1).tolist()]


def _shape(node: Node, x: Inputs) -> torch.Tensor:
    whole = list(x[0].shape)
    end = node.attributes.get("end")
    return torch.tensor(whole[node.whole("start") : end if isinstance(end, int) else None])


def _reshape(node: Node, x: Inputs) -> torch.Tensor:
    wanted = _ints(x[1])
    if not node.whole("allowzero"):
        wanted = [x[0].shape[place] if size == 0 else size for place, size in enumerate(wanted)]
    return x[0].reshape(wanted)


def _transpose(node: Node, x: Inputs) -> torch.Tensor:
    return x[0].permute(node.list("perm") or list(reversed(range(x[0].ndim))))


def _concat(node: Node, x: Inputs) -> torch.Tensor:
    return torch.cat([part.to(x[0].device) for part in x], dim=node.whole("axis"))


def _slice(node: Node, x: Inputs) -> torch.Tensor:
    starts, ends = _ints(x[1]), _ints(x[2])
    axes, steps = given(x, 3), given(x, 4)
    found = x[0]
    which = list(range(len(starts))) if axes is None else _ints(axes)
    strides = [1] * len(starts) if steps is None else _ints(steps)
    for axis, start, end, stride in zip(which, starts, ends, strides, strict=True):
        if stride < 1:
            raise unknown(node, f"steps of {stride}")
        size = found.shape[axis]
        window = [slice(None)] * found.ndim
        window[axis] = slice(max(start, -size), min(end, size), stride)
        found = found[tuple(window)]
    return found


def _gather(node: Node, x: Inputs) -> torch.Tensor:
    values, places = x[0], x[1].long()
    axis = node.whole("axis") % values.ndim
    places = torch.where(places < 0, places + values.shape[axis], places).to(values.device)
    picked = values.index_select(axis, places.reshape(-1))
    return picked.reshape(*values.shape[:axis], *places.shape, *values.shape[axis + 1 :])


def _unsqueeze(node: Node, x: Inputs) -> torch.Tensor:
    axes = _axes(node, x) or []
    rank = x[0].ndim + len(axes)
    found = x[0]
    for axis in sorted(axis % rank for axis in axes):
        found = found.unsqueeze(axis)
    return found


def _squeeze(node: Node, x: Inputs) -> torch.Tensor:
    axes = _axes(node, x)
    return x[0].squeeze() if axes is None else x[0].squeeze(tuple(axes))


def _expand(node: Node, x: Inputs) -> torch.Tensor:
    del node
    return x[0].expand(torch.broadcast_shapes(tuple(x[0].shape), tuple(_ints(x[1]))))


def _flatten(node: Node, x: Inputs) -> torch.Tensor:
    shape, axis = x[0].shape, node.whole("axis", 1)
    return x[0].reshape(math.prod(shape[:axis]), math.prod(shape[axis:]))


def _split(node: Node, x: Inputs) -> tuple[torch.Tensor, ...]:
    sizes, axis = given(x, 1), node.whole("axis")
    if sizes is not None:
        return x[0].split(_ints(sizes), dim=axis)
    n = node.whole("num_outputs", len(node.outputs))
    return x[0].split(-(-x[0].shape[axis] // n), dim=axis)


def _filled(node: Node, x: Inputs) -> torch.Tensor:
    value = node.attributes.get("value")
    fill = value.reshape(()) if isinstance(value, torch.Tensor) else torch.zeros(())
    return fill.expand(_ints(x[0])).clone()


def _constant(node: Node, x: Inputs) -> torch.Tensor:
    del x
    for name in ("value", "value_int", "value_float", "value_ints", "value_floats"):
        found = node.attributes.get(name)
        if isinstance(found, torch.Tensor):
            return found
        if isinstance(found, (int, float)) or (isinstance(found, Sequence) and found != ""):
            return torch.tensor(found)
    raise unknown(node, "no value")


OPERATORS: Mapping[str, Operator] = {
    "Abs": _each(torch.abs),
    "Add": _each(torch.add),
    "AveragePool": _average_pool,
    "BatchNormalization": _batch_norm,
    "Cast": _cast,
    "Ceil": _step(torch.ceil),
    "Clip": _clip,
    "Concat": _concat,
    "Constant": _constant,
    "ConstantOfShape": _filled,
    "Conv": _conv,
    "Div": _div,
    "Equal": _each(torch.eq),
    "Erf": _each(torch.erf),
    "Exp": _each(torch.exp),
    "Expand": _expand,
    "Flatten": _flatten,
    "Floor": _step(torch.floor),
    "Gather": _gather,
    "Gelu": _gelu,
    "Gemm": _gemm,
    "GlobalAveragePool": lambda node, x: x[0].mean(dim=(2, 3), keepdim=True),
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": lambda node, x: F.hardswish(x[0]),
    "Identity": lambda node, x: x[0],
    "LayerNormalization": _layer_norm,
    "LeakyRelu": lambda node, x: F.leaky_relu(x[0], float(node.get("alpha", 0.01))),
    "Log": _each(torch.log),
    "MatMul": matmul,
    "Max": _several(torch.maximum),
    "MaxPool": _max_pool,
    "Min": _several(torch.minimum),
    "Mul": _each(torch.mul),
    "Neg": _each(torch.neg),
    "Pow": _each(torch.pow),
    "Reciprocal": _each(torch.reciprocal),
    "ReduceMax": _reduced(torch.amax),
    "ReduceMean": _reduced(torch.mean),
    "ReduceSum": _reduced(torch.sum),
    "Relu": _each(torch.relu),
    "Reshape": _reshape,
    "Round": _step(torch.round),
    "Shape": _shape,
    "Sigmoid": _each(torch.sigmoid),
    "Slice": _slice,
    "Softmax": _softmax,
    "Softplus": lambda node, x: F.softplus(x[0]),
    "Split": _split,
    "Sqrt": _each(torch.sqrt),
    "Squeeze": _squeeze,
    "Sub": _each(torch.sub),
    "Tanh": _each(torch.tanh),
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
    "Where": _each(torch.where),
    "com.microsoft:Gelu": lambda node, x: F.gelu(x[0]),
    "com.microsoft:QuickGelu": lambda node, x: (
        x[0] * torch.sigmoid(float(node.get("alpha", 1.702)) * x[0])
    ),
}
"""By type, ``com.microsoft:`` before those of that domain."""
