"""No text of a client makes a line, a colour or a field of the log."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from robustzs_serving.observe import configure_logging, current_request_id, request_context
from robustzs_serving.observe.logs import JsonFormatter, TextFormatter, escape

NASTY = 'a\nERROR forged\r\n{"level":"error"}\x1b[31m\u2028\u202e\x00\ud800 ü 犬'


def _record(message: str, *values: object, **extra: object) -> logging.LogRecord:
    record = logging.LogRecord("robustzs.x", logging.INFO, "f", 1, message, values, None)
    record.__dict__.update(extra)
    return record


@given(st.text())
def test_an_escaped_text_is_one_line_and_comes_back(text: str) -> None:
    shown = escape(text)
    assert shown.isprintable()
    assert len(shown.splitlines()) <= 1
    if len(text) < 1000:
        raw = shown.encode("latin-1", "backslashreplace").decode("unicode_escape", "surrogatepass")
        assert raw == text


@pytest.mark.parametrize("formatter", [JsonFormatter(), TextFormatter()])
def test_whatever_is_logged_is_one_line(formatter: logging.Formatter) -> None:
    line = formatter.format(_record("got %s", NASTY, label=NASTY))
    assert len(line.splitlines()) == 1
    assert line.isprintable()
    assert "\x1b" not in line


def test_a_json_line_cannot_be_given_fields() -> None:
    fields = json.loads(JsonFormatter().format(_record("got %s", NASTY, level=NASTY, path=NASTY)))
    assert fields["level"] == "info"
    assert fields["path"] == NASTY
    assert fields["message"] == f"got {NASTY}"


def test_a_traceback_is_escaped_too() -> None:
    try:
        raise ValueError(NASTY)
    except ValueError:
        record = _record("failed")
        record.exc_info = sys.exc_info()
    line = TextFormatter().format(record)
    first, *rest = line.split("\n")
    assert first.endswith("failed")
    assert all(part.startswith("    ") and part.isprintable() for part in rest)
    fields = json.loads(JsonFormatter().format(record))
    assert "ValueError" in fields["exception"]


@pytest.fixture
def _loggers_as_before() -> Iterator[None]:
    root = logging.getLogger()
    kept = (root.handlers[:], root.level)
    others = {
        name: (one.handlers[:], one.level, one.propagate, one.disabled)
        for name in logging.root.manager.loggerDict
        for one in [logging.getLogger(name)]
    }
    yield
    root.handlers[:], root.level = kept
    for name, (handlers, level, propagate, disabled) in others.items():
        one = logging.getLogger(name)
        one.handlers[:] = handlers
        one.level, one.propagate, one.disabled = level, propagate, disabled


@pytest.mark.usefixtures("_loggers_as_before")
def test_every_logger_writes_in_one_form_with_the_request_id(
    capsys: pytest.CaptureFixture[str],
) -> None:
    foreign = logging.getLogger("uvicorn.error")
    foreign.addHandler(logging.StreamHandler(sys.stderr))
    foreign.setLevel(logging.NOTSET)  # servers of other tests made it quiet
    configure_logging("json")
    with request_context("abc123"):
        assert current_request_id() == "abc123"
        logging.getLogger("robustzs_serving.x").info("hello", extra={"rows": 3})
        foreign.warning("Invalid\nHTTP")
    logging.getLogger("some.library").info("not shown")
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [line["message"] for line in lines] == ["hello", "Invalid\nHTTP"]
    assert [line["request_id"] for line in lines] == ["abc123", "abc123"]
    assert lines[0]["rows"] == 3
    assert current_request_id() == ""
