"""Settings come from the environment; what is wrong with them is said before anything starts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from robustzs_serving.settings import Batching, Limits, ScorePolicy, ServiceSettings
from robustzs_serving.settings.environment import variables
from robustzs_serving.settings.table import render

from robustzs.errors import UsageError

REPOSITORY = Path(__file__).parents[3]
NAMES = [name for _, name in variables(ServiceSettings)]


def test_the_page_is_made_from_the_settings() -> None:
    page = REPOSITORY / "docs" / "service-limits.md"
    assert page.read_text("utf-8") == render(), "run the command at its top"
    for name in NAMES:
        assert f"| `{name}` |" in render()
    assert len(NAMES) == len(set(NAMES))


def test_every_field_is_described() -> None:
    for model in (Limits, Batching, ServiceSettings):
        for name, field in model.model_fields.items():
            assert field.description or name in ("limits", "batching", "triton"), name


def test_values_of_every_kind_are_read() -> None:
    settings = ServiceSettings.from_env(
        {
            "ROBUSTZS_MODEL": "mine",
            "ROBUSTZS_MAX_IMAGES": "8",
            "ROBUSTZS_BODY_SECONDS": "2.5",
            "ROBUSTZS_BATCH_MAX_ROWS": "4",
            "ROBUSTZS_BATCH_BUCKETS": "1, 2,4",
            "ROBUSTZS_URLS": "true",
            "ROBUSTZS_CORS_ORIGINS": "https://a.example, https://b.example:8443",
            "ROBUSTZS_SCORES": "rounded:2",
            "ROBUSTZS_KEYS_FILE": "/etc/keys.json",
            "ROBUSTZS_WORKERS": "",
            "ROBUSTZS_WARM": "wordnet,flat",
            "ROBUSTZS_TRUSTED_PROXIES": "10.0.0.7, 10.1.0.0/16",
            "PATH": "/bin",
        }
    )
    assert settings.model == "mine"
    assert settings.limits.max_images == 8
    assert settings.limits.body_seconds == 2.5
    assert settings.batching.buckets == (1, 2, 4)
    assert settings.urls_on
    assert settings.cors_origins == ("https://a.example", "https://b.example:8443")
    assert settings.score_policy == ScorePolicy("rounded", 2)
    assert settings.keys_file == Path("/etc/keys.json")
    assert settings.warm == ("wordnet", "flat")
    assert settings.trusted_proxies == ("10.0.0.7", "10.1.0.0/16")
    assert settings.workers == 1
    assert ServiceSettings.from_env({}) == ServiceSettings()


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("ROBUSTZS_MAX_IMAGES", "0", "greater than or equal to 1"),
        ("ROBUSTZS_MAX_IMAGES", "many", "valid integer"),
        ("ROBUSTZS_MAX_IMAGES", "1.5", "valid integer"),
        ("ROBUSTZS_BODY_SECONDS", "nan", "finite"),
        ("ROBUSTZS_BODY_SECONDS", "-1", "greater than 0"),
        ("ROBUSTZS_URLS", "perhaps", "boolean"),
        ("ROBUSTZS_PORT", "70000", "65535"),
        ("ROBUSTZS_SCORES", "rounded:99", "rounded:N"),
        ("ROBUSTZS_LOG_FORMAT", "xml", "'json' or 'text'"),
        ("ROBUSTZS_CORS_ORIGINS", "app.example", "no origin"),
        ("ROBUSTZS_CORS_ORIGINS", "https://app.example/", "no origin"),
        ("ROBUSTZS_BATCH_BUCKETS", "4,2,16", "must grow"),
        ("ROBUSTZS_BATCH_BUCKETS", "1,2", "must be equal"),
        ("ROBUSTZS_MAX_BODY_BYTES", "999999999999", "max_buffered_bytes"),
    ],
)
def test_what_is_wrong_is_named(variable: str, value: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as refused:
        ServiceSettings.from_env({variable: value})
    assert "docs/service-limits.md" in refused.value.hint
    pairs = ("ROBUSTZS_BATCH_BUCKETS", "ROBUSTZS_MAX_BODY_BYTES")
    if variable not in pairs:  # two variables are to blame for these
        assert variable in str(refused.value)
        assert repr(value) in str(refused.value)


def test_all_that_is_wrong_is_told_at_once() -> None:
    with pytest.raises(UsageError, match=r"ROBUSTZS_PORT.*ROBUSTZS_MAX_LABELS"):
        ServiceSettings.from_env({"ROBUSTZS_MAX_LABELS": "x", "ROBUSTZS_PORT": "y"})


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("ROBUSTZS_MAX_IMAGE", "ROBUSTZS_MAX_IMAGES"),
        ("ROBUSTZS_MAX_BODY_BYTE", "ROBUSTZS_MAX_BODY_BYTES"),
        ("ROBUSTZS_KEY_FILE", "ROBUSTZS_KEYS_FILE"),
        ("ROBUSTZS_CORS_ORIGIN", "ROBUSTZS_CORS_ORIGINS"),
    ],
)
def test_a_misspelt_variable_is_not_ignored(wrong: str, right: str) -> None:
    with pytest.raises(UsageError, match=f"did you mean {right}"):
        ServiceSettings.from_env({wrong: "1"})


def test_what_kubernetes_and_the_core_set_is_left_alone() -> None:
    environment = {
        "ROBUSTZS_PORT": "tcp://10.0.0.7:3000",
        "ROBUSTZS_SERVICE_HOST": "10.0.0.7",
        "ROBUSTZS_SERVICE_PORT": "3000",
        "ROBUSTZS_SERVICE_PORT_HTTP": "3000",
        "ROBUSTZS_PORT_3000_TCP": "tcp://10.0.0.7:3000",
        "ROBUSTZS_PORT_3000_TCP_ADDR": "10.0.0.7",
        "ROBUSTZS_CACHE": "/models/cache",
        "ROBUSTZS_CACHE_MAX_BYTES": "0",
        "ROBUSTZS_MODELS": "/models",
        "ROBUSTZS_SOMETHING_ELSE": "1",
    }
    assert ServiceSettings.from_env(environment) == ServiceSettings()


@given(st.sampled_from(NAMES), st.text(st.characters(codec="utf-8"), max_size=30))
def test_no_value_raises_anything_untyped(name: str, value: str) -> None:
    try:
        ServiceSettings.from_env({name: value})
    except UsageError as error:
        message = str(error)
    else:
        message = "ROBUSTZS_"
    assert "ROBUSTZS_" in message or "must" in message or "less than" in message


def test_settings_do_not_change_once_made() -> None:
    settings = ServiceSettings()
    with pytest.raises(ValidationError):
        settings.port = 1
    with pytest.raises(ValidationError):
        ServiceSettings(max_images=3)  # type: ignore[call-arg]


def test_the_command_writes_the_page() -> None:
    command = [sys.executable, "-m", "robustzs_serving.settings"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == render()
