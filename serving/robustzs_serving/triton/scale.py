"""The ONNX model that turns bytes into pixels: one cast, one division.

Written as protobuf by hand: five messages are less than a dependency on the onnx package. Field
numbers: ``onnx.proto`` of ONNX 1.23; a test has onnx check it and ONNX Runtime run it.
"""

from __future__ import annotations

import struct

_FLOAT, _UINT8 = 1, 2  # TensorProto.DataType
_INT = 2  # AttributeProto.AttributeType
_IR_VERSION, _OPSET = 8, 18


def scale_model(source: str, target: str, dims: tuple[int, ...]) -> bytes:
    """A model ``target = float32(source) / 255``.

    A division, and no product with 1/255, which would round to other values than the ones that
    ``pixels`` have everywhere else.

    Args:
        source: name of its input, uint8 ``[B, *dims]``.
        target: name of its output, float32 of the same shape.
        dims: without the batch axis.
    """
    cast = _node("Cast", [source], "as_float", _int_attribute("to", _FLOAT))
    divide = _node("Div", ["as_float", "white"], target)
    white = _number(2, _FLOAT) + _text(8, "white") + _bytes(9, struct.pack("<f", 255.0))
    graph = b"".join(
        [
            _bytes(1, cast),
            _bytes(1, divide),
            _text(2, "scale"),
            _bytes(5, white),
            _bytes(11, _value(source, _UINT8, dims)),
            _bytes(12, _value(target, _FLOAT, dims)),
        ]
    )
    opset = _number(2, _OPSET)
    model = _number(1, _IR_VERSION) + _text(2, "robustzs")
    return model + _bytes(7, graph) + _bytes(8, opset)


def _node(operator: str, inputs: list[str], output: str, attribute: bytes = b"") -> bytes:
    given = b"".join(_text(1, name) for name in inputs)
    rest = _bytes(5, attribute) if attribute else b""
    return given + _text(2, output) + _text(3, output) + _text(4, operator) + rest


def _int_attribute(name: str, value: int) -> bytes:
    return _text(1, name) + _number(3, value) + _number(20, _INT)


def _value(name: str, kind: int, dims: tuple[int, ...]) -> bytes:
    shape = _bytes(1, _text(2, "batch"))
    shape += b"".join(_bytes(1, _number(1, size)) for size in dims)
    tensor = _number(1, kind) + _bytes(2, shape)
    return _text(1, name) + _bytes(2, _bytes(1, tensor))


def _text(field: int, value: str) -> bytes:
    return _bytes(field, value.encode())


def _bytes(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])
