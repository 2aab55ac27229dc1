r"""One line per event, text or JSON, that no text of a client can forge or break.

Messages and values are escaped when they are written, whoever logs them: a break, a terminal's
control sequence or a Unicode separator comes out as ``\n``, ``\x1b``, ``\u2028``.
"""

from __future__ import annotations

import contextlib
import json
import logging
import logging.config
import sys
from collections.abc import Iterator
from contextvars import ContextVar
from datetime import datetime, timezone
from typing import Literal

LogFormat = Literal["json", "text"]

_OURS = ("robustzs", "robustzs_serving")
_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}
_LONGEST = 8_192
_JSON = json.JSONEncoder(ensure_ascii=True, default=str)  # `json.dumps` would make one each time
_request_id: ContextVar[str] = ContextVar("robustzs_request_id", default="")


def current_request_id() -> str:
    """Id of the request that this task works on; empty outside one."""
    return _request_id.get()


@contextlib.contextmanager
def request_context(request_id: str) -> Iterator[None]:
    """Lines logged inside carry this request id."""
    token = _request_id.set(request_id)
    try:
        yield
    finally:
        _request_id.reset(token)


def escape(text: str, *, breaks: bool = False) -> str:
    """A text in which nothing can end a line, move a cursor or turn the reading direction.

    Args:
        text: Any text, lone surrogates included.
        breaks: Keep line breaks as they are and indent what follows (for tracebacks).
    """
    if text.isprintable() and text.isascii() and "\\" not in text:
        return text
    out = []
    for char in text[:_LONGEST]:
        if char == "\n" and breaks:
            out.append("\n    ")
        elif char == "\\":
            out.append("\\\\")
        elif char.isprintable():
            out.append(char)
        else:
            out.append(char.encode("unicode_escape").decode("ascii"))
    if len(text) > _LONGEST:
        out.append(f"... ({len(text)} characters)")
    return "".join(out)


def _when(record: logging.LogRecord) -> str:
    moment = datetime.fromtimestamp(record.created, timezone.utc)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _extras(record: logging.LogRecord) -> dict[str, object]:
    return {key: value for key, value in record.__dict__.items() if key not in _STANDARD}


class TextFormatter(logging.Formatter):
    """``time level logger [request id] message key=value``."""

    def format(self, record: logging.LogRecord) -> str:
        """Write one record; a traceback follows on indented lines."""
        parts = [_when(record), record.levelname, record.name]
        request_id = current_request_id()
        if request_id:
            parts.append(f"[{escape(request_id)}]")
        parts.append(escape(record.getMessage()))
        parts += [f"{key}={_value(value)}" for key, value in _extras(record).items()]
        line = " ".join(parts)
        if record.exc_info:
            # The text of an exception may hold what a client sent, so it is escaped line by line.
            line += "\n    " + escape(self.formatException(record.exc_info), breaks=True)
        return line


def _value(value: object) -> str:
    if isinstance(value, int | float):
        return str(value)
    return json.dumps(str(value)[:_LONGEST])


class JsonFormatter(logging.Formatter):
    """One JSON object per line, ASCII only."""

    def format(self, record: logging.LogRecord) -> str:
        """Write one record; a traceback is one of its fields."""
        fields: dict[str, object] = {
            "time": _when(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage()[:_LONGEST],
            "pid": record.process,
        }
        if request_id := current_request_id():
            fields["request_id"] = request_id
        for key, value in _extras(record).items():
            plain = value is None or isinstance(value, bool | int | float)
            fields.setdefault(key, value if plain else str(value)[:_LONGEST])
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return _JSON.encode(fields)


def configure_logging(log_format: LogFormat = "json", *, level: int = logging.INFO) -> None:
    """Send every logger's lines to stderr in one format.

    Args:
        log_format: ``json`` for collectors, ``text`` for people.
        level: Of robustzs' own loggers; others are logged from warnings up.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    # BentoML, circus and uvicorn bring handlers of their own, which would write raw text.
    for name in list(logging.root.manager.loggerDict):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
        logger.disabled = False
    for name in ("bentoml", "circus", "uvicorn"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # uvicorn's access lines are off: ours name the route and the request id.
    access = logging.getLogger("uvicorn.access")
    access.propagate = False
    access.handlers.clear()
    for name in _OURS:
        logging.getLogger(name).setLevel(level)
