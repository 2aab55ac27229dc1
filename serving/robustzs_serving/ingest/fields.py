"""Names and kinds of fields, and values from the text of a form or from JSON."""

from __future__ import annotations

import contextlib
import difflib
import re
from collections.abc import Collection, Iterator
from typing import Literal

from robustzs.errors import RobustZSError
from robustzs_serving.errors import FieldValueError, UnknownFieldError, quoted
from robustzs_serving.ingest.strict_json import Json, parse_json
from robustzs_serving.settings import Limits

Kind = Literal["number", "whole", "text", "reject", "level"]

OPTION_KINDS: dict[str, Kind] = {
    "strategy": "text",
    "rule": "text",
    "theta": "number",
    "target_accuracy": "number",
    "temperature": "number",
    "top_k": "whole",
    "level": "level",
    "root": "text",
    "reject": "reject",
    "n_hyponyms": "whole",
}
"""Fields that are options of a classifier."""

CLASSIFY_FIELDS = (
    *OPTION_KINDS,
    "labels",
    "label_set",
    "hierarchy",
    "templates",
    "on_ambiguous",
    "on_unknown",
    "model",
)
"""Fields of ``/v1/classify`` apart from images."""

EMBED_FIELDS = ("encoding", "model")
"""Fields of ``/v1/embed`` apart from images and texts."""

_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d{1,3})?", re.ASCII)
_WHOLE = re.compile(r"[+-]?\d{1,9}", re.ASCII)
_MAX_NUMBER_CHARS = 32


def unknown_field(name: str, known: Collection[str], where: str = "field") -> UnknownFieldError:
    """The error for a field that does not exist, with the closest one that does."""
    close = difflib.get_close_matches(name[:64], sorted(known), n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(sorted(known))}"
    return UnknownFieldError(f"unknown {where} {quoted(name)}", hint=hint, param=name[:64])


@contextlib.contextmanager
def blamed(param: str) -> Iterator[None]:
    """Errors that leave this block name the field that is to blame."""
    try:
        yield
    except RobustZSError as error:
        if getattr(error, "param", None) is None:
            error.__dict__["param"] = param
        raise


def from_text(name: str, kind: Kind, text: str) -> str | float | bool:
    """The value of an option from a form.

    Raises:
        FieldValueError: the text is not of its kind.
    """
    text = text.strip()
    if not text:
        raise FieldValueError(f"{name} is empty", hint="leave the field out", param=name)
    if kind == "reject" and text.lower() in ("true", "false"):
        return text.lower() == "true"
    if kind in ("number", "reject"):
        if len(text) <= _MAX_NUMBER_CHARS and _NUMBER.fullmatch(text):
            return float(text)
        raise FieldValueError(f"{name} must be a number, got {quoted(text)}", param=name)
    if kind == "whole":
        if _WHOLE.fullmatch(text):
            return int(text)
        raise FieldValueError(f"{name} must be a whole number, got {quoted(text)}", param=name)
    return text


def from_json(name: str, kind: Kind, value: Json) -> str | float | bool:
    """The value of an option from JSON, whose kinds are strict: ``"0.5"`` is no number.

    Raises:
        FieldValueError: the value is not of its kind.
    """
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    whole = isinstance(value, int) and not isinstance(value, bool)
    fits = {
        "number": number,
        "whole": whole,
        "text": isinstance(value, str),
        "reject": number or isinstance(value, bool),
        "level": whole or isinstance(value, str),
    }
    words = {"number": "a number", "whole": "a whole number", "text": "a text"}
    if not fits[kind]:
        wanted = words.get(
            kind, "true, false or a number" if kind == "reject" else "a depth or a rank"
        )
        raise FieldValueError(f"{name} must be {wanted}, got {quoted(value)}", param=name)
    if kind in ("text", "level") and isinstance(value, str) and not value.strip():
        raise FieldValueError(f"{name} is empty", hint="leave the field out", param=name)
    return value


def json_or_text(name: str, text: str, limits: Limits) -> Json:
    """What stands in a form's field that takes JSON, or simple text.

    Raises:
        BodyMalformedError: it begins like JSON and is none.
    """
    # A template may be `{}` and a label may begin with a brace, so an object must look like one.
    if re.match(r'\s*(\[|\{\s*")', text):
        return parse_json(text, limits, f"the JSON of {name}", param=name)
    return text
