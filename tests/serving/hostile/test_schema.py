"""schemathesis over the OpenAPI file of a real service: `make fuzz-service`."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from tests.serving.conftest import Service

# What no schema can say makes right requests wrong (a label twice, a precondition that does not
# hold, bytes that are no image), so that acceptance of all valid data is not asked for. There are
# no keys here, so that none can be ignored.
_LEFT_OUT = "positive_data_acceptance,ignored_auth"
_CONFIG = """
[checks.negative_data_rejection]
expected-statuses = [
  "400", "401", "403", "404", "405", "408", "412", "413", "414", "415", "422", "431",
]
"""


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("schemathesis") is None, reason="needs schemathesis")
def test_answers_are_as_described_whatever_is_sent(service: Service, tmp_path: Path) -> None:
    config = tmp_path / "schemathesis.toml"
    config.write_text(_CONFIG, encoding="utf-8")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(config), "run"),
            *(f"{service.url}/openapi.json", "--seed", "1", "--max-examples", "50"),
            *("--exclude-checks", _LEFT_OUT, "--continue-on-failure", "--no-color"),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=550,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-10_000:] + done.stderr[-2_000:]
    assert "Traceback" not in service.text()
