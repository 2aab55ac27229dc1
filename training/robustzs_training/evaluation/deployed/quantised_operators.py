"""ONNX's quantised operators in torch; integers are carried as floats, so that gradients flow.

Sums of products of bytes are exact in float32 up to 2^24; beyond that they round, as float32 does.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from robustzs.errors import EvaluationError
from robustzs_training.evaluation.deployed.node import Inputs, Node, Operator, given
from robustzs_training.evaluation.deployed.operators import convolve, matmul
from robustzs_training.evaluation.deployed.straight_through import levels_of

RANGES: Mapping[torch.dtype, tuple[int, int]] = {
    torch.uint8: (0, 255),
    torch.int8: (-128, 127),
    torch.uint16: (0, 65535),
    torch.int16: (-32768, 32767),
}
BATCH_DEPENDENT = frozenset({"DynamicQuantizeLinear"})
"""Operators that set a scale from all that is in a batch."""


def _zero_point(x: Inputs, place: int, like: torch.Tensor) -> torch.Tensor:
    found = given(x, place)
    return torch.zeros((), device=like.device) if found is None else found.float()


def _along(parameter: torch.Tensor, values: torch.Tensor, axis: int) -> torch.Tensor:
    """A scale or zero point of one number, or of one for each place of an axis."""
    if parameter.numel() == 1:
        return parameter.reshape(())
    if parameter.ndim != 1:
        raise EvaluationError(
            f"a graph quantises in blocks of shape {list(parameter.shape)}",
            hint="the twin knows one scale for a tensor or for each channel",
        )
    shape = [1] * values.ndim
    shape[axis] = -1
    return parameter.reshape(shape)


def _quantize(node: Node, x: Inputs) -> torch.Tensor:
    values, scale = x[0], x[1]
    axis = node.whole("axis", 1)
    zero_point = given(x, 2)
    kind = torch.uint8 if zero_point is None else zero_point.dtype
    if kind not in RANGES:
        raise EvaluationError(f"a graph quantises to {kind}", hint="the twin knows 8 and 16 bits")
    zero = _zero_point(x, 2, values)
    return levels_of(values, _along(scale, values, axis), _along(zero, values, axis), *RANGES[kind])


def _dequantize(node: Node, x: Inputs) -> torch.Tensor:
    axis = node.whole("axis", 1)
    levels = x[0].float()
    zero = _along(_zero_point(x, 2, levels), levels, axis)
    return (levels - zero) * _along(x[1].float(), levels, axis)


def _dynamic(node: Node, x: Inputs) -> tuple[torch.Tensor, ...]:
    """Scale and zero point from the smallest and the largest value; constants for gradients."""
    del node
    values = x[0]
    with torch.no_grad():
        low, high = values.amin().clamp(max=0.0), values.amax().clamp(min=0.0)
        scale = (high - low) / 255.0
        scale = torch.where(scale > 0.0, scale, torch.ones_like(scale))
        zero = (-low / scale).round().clamp(0.0, 255.0)
    return levels_of(values, scale, zero, 0, 255), scale, zero


def _matmul_integer(node: Node, x: Inputs) -> torch.Tensor:
    del node
    left, right = x[0].float(), x[1].float()
    zero_left, zero_right = _zero_point(x, 2, left), _zero_point(x, 3, right)
    if zero_left.numel() > 1:
        zero_left = zero_left.reshape(-1, 1)
    return torch.matmul(left - zero_left, right - zero_right)


def _conv_integer(node: Node, x: Inputs) -> torch.Tensor:
    weight = x[1].float()
    zero = _along(_zero_point(x, 3, weight), weight, 0)
    return convolve(node, x[0].float() - _zero_point(x, 2, weight), weight - zero, None)


def _qlinear_conv(node: Node, x: Inputs) -> torch.Tensor:
    """x, x_scale, x_zero, w, w_scale, w_zero, y_scale, y_zero, bias."""
    values = (x[0].float() - x[2].float()) * x[1]
    levels = x[3].float()
    w_scale = _along(x[4], levels, 0)
    weight = (levels - _along(x[5].float(), levels, 0)) * w_scale
    bias = x[8].float() * x[1] * x[4].reshape(-1) if given(x, 8) is not None else None
    found = convolve(node, values, weight, bias)
    return levels_of(found, x[6], x[7].float(), *RANGES[x[7].dtype])


def _qlinear_matmul(node: Node, x: Inputs) -> torch.Tensor:
    """a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero."""
    left = (x[0].float() - x[2].float()) * x[1]
    right = (x[3].float() - x[5].float()) * x[4]
    found = matmul(node, [left, right])
    return levels_of(found, x[6], x[7].float(), *RANGES[x[7].dtype])


def nbits_weight(node: Node, x: Inputs) -> torch.Tensor:
    """The real weight ``[K, N]`` of a ``MatMulNBits``, from its packed blocks.

    Raises:
        EvaluationError: A form of it that the twin does not know.
    """
    n_in, n_out = node.whole("K", 0), int(node.get("N", 0))
    bits, size = node.whole("bits", 4), int(node.get("block_size", 0))
    if bits not in (4, 8) or given(x, 4) is not None:
        raise EvaluationError(
            f"MatMulNBits of {bits} bits, reordered or not", hint="the twin knows 4 and 8 bits"
        )
    if node.whole("accuracy_level", 0) == 4:
        raise EvaluationError(
            "MatMulNBits with accuracy_level 4 quantises activations by itself",
            hint="the twin models weights alone there",
        )
    n_blocks = -(-n_in // size)
    levels = _unpacked(x[1].reshape(n_out, n_blocks, -1), bits)[..., :size].float()
    zero = torch.full((n_out, n_blocks, 1), float(2 ** (bits - 1)))
    packed = given(x, 3)
    if packed is not None:
        if packed.is_floating_point():
            zero = packed.reshape(n_out, n_blocks, 1).float()
        else:
            zero = _unpacked(packed.reshape(n_out, -1), bits)[:, :n_blocks, None].float()
    scale = x[2].float().reshape(n_out, n_blocks, 1)
    return ((levels - zero) * scale).reshape(n_out, -1)[:, :n_in].T.contiguous()


def _unpacked(packed: torch.Tensor, bits: int) -> torch.Tensor:
    """Levels along the last axis; of 4 bits the lower half of a byte comes first."""
    if bits == 8:
        return packed
    halves = torch.stack((packed & 15, packed >> 4), dim=-1)
    return halves.flatten(-2)


QUANTISED: Mapping[str, Operator] = {
    "QuantizeLinear": _quantize,
    "DequantizeLinear": _dequantize,
    "DynamicQuantizeLinear": _dynamic,
    "MatMulInteger": _matmul_integer,
    "ConvInteger": _conv_integer,
    "QLinearConv": _qlinear_conv,
    "QLinearMatMul": _qlinear_matmul,
}
"""By type; their outputs carry integers as floats."""
