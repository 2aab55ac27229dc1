"""Keys: hashed at rest, several, rotated without a restart, revoked within seconds."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from robustzs_serving.edge import keys
from robustzs_serving.edge.keys import KeyRing, make_key, read_keys, revoke_keys

from robustzs.errors import UsageError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


@pytest.fixture(autouse=True)
def _look_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "_LOOK_AGAIN_SECONDS", 0.0)


def test_the_file_has_no_key_and_is_for_its_owner(path: Path) -> None:
    key, record = make_key(path, "ci")
    text = path.read_text()
    assert key not in text
    assert key.split("_", 2)[2] not in text
    assert record.sha256 in text
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(key.split("_", 2)[2]) == 43, "256 bits"


def test_keys_rotate_while_the_service_runs(path: Path) -> None:
    first, old = make_key(path, "ci")
    ring = KeyRing(path)
    assert ring.find(first) == "ci"
    second, _ = make_key(path, "ci")
    other, _ = make_key(path, "phone")
    assert [ring.find(key) for key in (first, second, other)] == ["ci", "ci", "phone"]
    assert revoke_keys(path, old.id) == (old,)
    assert [ring.find(key) for key in (first, second, other)] == [None, "ci", "phone"]
    revoke_keys(path, "ci")
    assert [ring.find(key) for key in (first, second, other)] == [None, None, "phone"]


@pytest.mark.parametrize("change", ["", "x", "upper", "space", "surrogate"])
def test_a_key_that_is_nearly_right_is_wrong(path: Path, change: str) -> None:
    key, _ = make_key(path, "ci")
    wrong = {
        "": "",
        "x": key[:-1] + ("a" if key[-1] != "a" else "b"),
        "upper": key.upper(),
        "space": key + " ",
        "surrogate": key + "\udcff",
    }[change]
    assert KeyRing(path).find(wrong) is None


def test_a_key_ends_when_it_says(path: Path) -> None:
    key, record = make_key(path, "ci", days=1)
    assert record.expires is not None
    assert KeyRing(path).find(key) == "ci"
    document = json.loads(path.read_text())
    past = datetime.now(timezone.utc) - timedelta(seconds=1)
    document["keys"][0]["expires"] = past.isoformat()
    path.write_text(json.dumps(document))
    assert KeyRing(path).find(key) is None


def test_a_service_does_not_start_without_its_keys(path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot be read.*keys make"):
        KeyRing(path)
    for text in ("", "[]", '{"keys": [{"name": "ci"}]}', '{"schema_version": 2}', "\0\0"):
        path.write_text(text)
        with pytest.raises(UsageError, match="damaged"):
            KeyRing(path)


def test_a_file_that_breaks_later_changes_nothing(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    key, _ = make_key(path, "ci")
    ring = KeyRing(path)
    path.write_text("{")
    assert ring.find(key) == "ci"
    assert "damaged" in caplog.text
    path.unlink()
    assert ring.find(key) == "ci"


@pytest.mark.parametrize("name", ["", "anonymous", "Ci", "a b", "-a", "a" * 65, "../x", "é"])
def test_names_are_plain(path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="cannot be named"):
        make_key(path, name)
    assert not path.exists()


def test_what_cannot_be_written_or_found_is_said(path: Path) -> None:
    with pytest.raises(UsageError, match="no folder"):
        make_key(path.parent / "missing" / "keys.json", "ci")
    make_key(path, "ci")
    with pytest.raises(UsageError, match="no key has the name or id"):
        revoke_keys(path, "nobody")
    assert len(read_keys(path)) == 1
    assert [each.name for each in path.parent.iterdir()] == ["keys.json"], "nothing is left over"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "robustzs", "keys", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_command_makes_lists_and_revokes(path: Path) -> None:
    made = run("make", "ci", "--file", str(path), "--days", "30")
    key = made.stdout.strip()
    assert made.returncode == 0
    assert KeyRing(path).find(key) == "ci"
    assert key not in made.stderr
    listed = run("list", "--file", str(path))
    assert "ci" in listed.stdout
    rows = json.loads(run("list", "--file", str(path), "--json").stdout)
    assert set(rows[0]) == {"id", "name", "created", "expires"}
    assert rows[0]["id"] == key.split("_")[1]
    assert run("revoke", rows[0]["id"], "--file", str(path)).returncode == 0
    assert read_keys(path) == ()
    wrong = run("revoke", "ci", "--file", str(path))
    assert wrong.returncode == 2
    assert "Traceback" not in wrong.stderr
