"""JSON as RFC 8259 has it, and no more than a service should hold."""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn, TypeAlias

from robustzs_serving.errors import BodyMalformedError, quoted
from robustzs_serving.settings import Limits

Json: TypeAlias = Any
"""What ``json.loads`` gives: dict, list, str, int, float, bool or None."""

_MAX_DIGITS = 32


class _RefusedError(ValueError):
    """JSON that Python's reader would let through."""


def parse_json(text: bytes | str, limits: Limits, what: str, *, param: str | None = None) -> Json:
    """Parse a document strictly.

    Refused beside what is no JSON: another encoding than UTF-8, a key twice in one object, NaN and
    infinities (``1e999`` too), numbers of more than 32 digits, more values and deeper nesting
    than the limits allow. A document of many small values takes fifty times its size in memory, so
    what separates them is counted before anything is parsed.

    Args:
        text: the document.
        limits: ``max_json_values`` and ``max_json_depth``.
        what: names the document in messages.
        param: the field that it stands in.

    Raises:
        BodyMalformedError: it is refused.
    """
    try:
        if isinstance(text, bytes):
            text = text.decode("utf-8")
        values = text.count(",") + text.count("[") + text.count("{")
        if values > limits.max_json_values:
            raise _RefusedError(f"more than {limits.max_json_values} commas and brackets")
        document = json.loads(
            text,
            object_pairs_hook=_object,
            parse_constant=_no_constant,
            parse_float=_float,
            parse_int=_int,
        )
        _check_depth(document, limits.max_json_depth)
    except UnicodeDecodeError as error:
        raise _refused(what, param, f"it is not UTF-8 at byte {error.start}") from error
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise _refused(what, param, f"it is no JSON at {place}") from error
    except RecursionError as error:
        raise _refused(what, param, "it is nested too deeply") from error
    except _RefusedError as error:
        raise _refused(what, param, str(error)) from error
    return document


def _refused(what: str, param: str | None, why: str) -> BodyMalformedError:
    return BodyMalformedError(f"{what} cannot be read: {why}", param=param)


def _object(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    made = dict(pairs)
    if len(made) < len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise _RefusedError(f"the key {quoted(key)} is there twice in one object")
            seen.add(key)
    return made


def _no_constant(name: str) -> NoReturn:
    raise _RefusedError(f"{name} is not JSON")


def _float(text: str) -> float:
    value = float(text)
    if len(text) > _MAX_DIGITS or not math.isfinite(value):
        raise _RefusedError(f"the number {quoted(text, 32)} is too long or too large")
    return value


def _int(text: str) -> int:
    if len(text) > _MAX_DIGITS:
        raise _RefusedError(f"the number {quoted(text, 32)} is too long")
    return int(text)


def _check_depth(document: Json, limit: int) -> None:
    layer = [document]
    for _ in range(limit + 1):
        below: list[Json] = []
        for value in layer:
            if isinstance(value, dict):
                below.extend(value.values())
            elif isinstance(value, list):
                below.extend(value)
        if not below:
            return
        layer = below
    raise _RefusedError(f"it is nested more than {limit} deep")
