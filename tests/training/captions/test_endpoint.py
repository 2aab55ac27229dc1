"""Captions from a real server that misbehaves, and a real process that is killed."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from robustzs_training.captions.endpoint import PROMPT, EndpointCaptioner
from robustzs_training.captions.journal import Journal
from robustzs_training.captions.run import Prices, State, caption_images

from robustzs.chat import ChatConfig
from robustzs.errors import CaptionError, ServerError
from tests.chat_server import Answer, failed, said, serving


@pytest.fixture(autouse=True)
def _no_long_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setattr("robustzs.chat._FIRST_WAIT", 0.01)


def _images(folder: Path, count: int, size: tuple[int, int] = (40, 30)) -> list[str]:
    folder.mkdir()
    keys = []
    for number in range(count):
        pixels = np.random.default_rng(number).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:02d}.png")
        keys.append(f"{number:02d}.png")
    return keys


def _picture(body: dict[str, Any]) -> str:
    """Names what a request shows."""
    url = body["messages"][0]["content"][1]["image_url"]["url"]
    return hashlib.sha256(url.encode()).hexdigest()[:12]


def _captioner(folder: Path, url: str, **changes: Any) -> EndpointCaptioner:
    options = {"timeout": 5.0, "n_retries": 1, "connections": 3, **changes}
    return EndpointCaptioner(folder=folder, config=ChatConfig(url=url, model="tiny", **options))


def test_what_is_sent_is_the_papers_question_and_a_small_jpeg(tmp_path: Path) -> None:
    keys = _images(tmp_path / "in", 1, size=(2000, 500))
    with serving(lambda body, n: said("a cat")) as server:
        outcomes = list(_captioner(tmp_path / "in", server.url).caption(keys))
    assert outcomes[0][0].caption == "a cat"
    text, image = server.requests[0]["messages"][0]["content"]
    assert text == {"type": "text", "text": "Describe the image in detail within 50 words."}
    head, _, data = image["image_url"]["url"].partition(",")
    assert head == "data:image/jpeg;base64"
    with Image.open(io.BytesIO(base64.b64decode(data))) as sent:
        assert (sent.format, sent.size) == ("JPEG", (896, 224))


def test_failures_are_counted_and_the_rest_goes_on(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    keys = _images(folder, 8)
    (folder / "bad.jpg").write_bytes(b"not an image")
    keys = sorted([*keys, "bad.jpg", "gone.png"])
    seen: Counter[str] = Counter()

    def answer(body: dict[str, Any], number: int) -> Answer:
        seen[picture := _picture(body)] += 1
        kind = list(seen).index(picture)
        if kind == 0 and seen[picture] == 1:
            return failed(429, Retry_After="0.01")
        if kind == 1:
            return failed(400, "content policy")
        if kind == 2:
            return said("  \n ")
        if kind == 3:
            return failed(500)
        return said(f"caption of {picture}", 1000, 500)

    states: list[State] = []
    with (
        serving(answer) as server,
        Journal.open(tmp_path / "j", {"source": "openai"}) as journal,
    ):
        captioner = _captioner(folder, server.url)
        prices = Prices(prompt=2.0, completion=4.0)
        summary = caption_images(keys, captioner, journal, prices=prices, report=states.append)
        assert (summary.total, summary.captioned, summary.new) == (10, 5, 5)
        assert dict(summary.failures) == {
            "image-format": 1,
            "image-source": 1,
            "chat-refused": 1,
            "chat-unavailable": 1,
            "empty": 1,
        }
        # Five captions of 1000 and 500 tokens, and an empty answer of 10 and 5.
        assert (summary.prompt_tokens, summary.completion_tokens) == (5010, 2505)
        assert summary.cost == pytest.approx((5010 * 2 + 2505 * 4) / 1e6)
        assert states[-1].done == states[-1].total == 10
        assert states[-1].failed == 5
        n_before = len(server.requests)
        # The server's failure is tried again, those of images are not.
        again = caption_images(keys, captioner, journal)
        assert len(server.requests) == n_before + 2
        assert again.captioned == 5
        retried = caption_images(keys, captioner, journal, retry_failed=True)
        assert len(server.requests) > n_before + 4
        assert retried.captioned == 5


def test_a_wrong_key_stops_at_once_and_a_dead_server_soon(tmp_path: Path) -> None:
    keys = _images(tmp_path / "in", 40)
    with Journal.open(tmp_path / "j", {}) as journal:
        with serving(lambda body, n: failed(401)) as server:
            with pytest.raises(ServerError, match="401"):
                caption_images(keys, _captioner(tmp_path / "in", server.url), journal)
            assert len(server.requests) <= 3
        with (
            serving(lambda body, n: failed(503)) as server,
            pytest.raises(CaptionError, match=r"25 images all failed: .*503"),
        ):
            caption_images(keys, _captioner(tmp_path / "in", server.url), journal)
        assert len(journal) == 0
        with serving(lambda body, n: said("a cat")) as server:
            summary = caption_images(keys, _captioner(tmp_path / "in", server.url), journal)
        assert summary.captioned == 40
        assert not summary.failures


def test_the_cost_has_a_limit(tmp_path: Path) -> None:
    keys = _images(tmp_path / "in", 30)
    with (
        serving(lambda body, n: said("a cat", 1_000_000, 0)) as server,
        Journal.open(tmp_path / "j", {}) as journal,
    ):
        captioner = _captioner(tmp_path / "in", server.url)
        summary = caption_images(keys, captioner, journal, prices=Prices(prompt=1.0), max_cost=10.0)
        assert summary.is_stopped
        assert 10 <= summary.captioned <= 13
        assert len(server.requests) <= 16


def _command(folder: Path, output: Path, url: str, bundle: Path) -> list[str]:
    arguments = ["caption", str(folder), "-o", str(output), "--source", "openai", "--url", url]
    arguments += ["--model", "tiny", "--concurrency", "2", "--tower", str(bundle)]
    return [sys.executable, "-m", "robustzs", *arguments]


def _wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("suffix", ["jsonl", pytest.param("parquet", marks=pytest.mark.slow)])
def test_after_sigkill_nothing_is_lost_and_nothing_asked_twice(
    tmp_path: Path, tiny_bundle: Path, suffix: str
) -> None:
    folder = tmp_path / "in"
    keys = _images(folder, 12)
    stop_after = 5

    def answer(body: dict[str, Any], number: int) -> Answer:
        reply = said(f"caption of {_picture(body)}")
        # Each image is answered alike, however often; the killed run waits for its sixth answer.
        if blocking and number >= stop_after:
            reply.wait = 60.0
        return reply

    output = tmp_path / f"captions.{suffix}"
    whole = tmp_path / f"whole.{suffix}"
    blocking = True
    with serving(answer) as server:
        process = subprocess.Popen(
            _command(folder, output, server.url, tiny_bundle), stderr=subprocess.PIPE
        )
        journal = output.with_name(f"{output.name}.journal")
        try:
            # All five answers are on the disk, two more images are under way.
            _wait_for(lambda: len(server.requests) >= stop_after + 2 and _n_lines(journal) >= 6)
        finally:
            process.send_signal(signal.SIGKILL)
            process.communicate()
        assert not output.exists()
        with journal.open("ab") as stream:
            stream.write(b'{"key": "torn')
        asked_before = [_picture(body) for body in server.requests]
        blocking = False
        _finish(_command(folder, output, server.url, tiny_bundle))
        asked = Counter(_picture(body) for body in server.requests)
        assert len(asked) == len(keys)
        twice = {picture for picture, count in asked.items() if count > 1}
        assert len(server.requests) == len(keys) + 2
        assert twice == set(asked_before[stop_after:]), "only what had no answer is asked again"
        n_before = len(server.requests)
        _finish(_command(folder, output, server.url, tiny_bundle))
        assert len(server.requests) == n_before
        _finish(_command(folder, whole, server.url, tiny_bundle))
    assert output.read_bytes() == whole.read_bytes()
    assert len(_rows(output)) == len(keys)
    assert _rows(output)[0]["prompt"] == PROMPT


def test_an_interrupted_run_ends_at_once(tmp_path: Path, tiny_bundle: Path) -> None:
    _images(tmp_path / "in", 4)
    with serving(lambda body, n: Answer(wait=60.0)) as server:
        command = _command(tmp_path / "in", tmp_path / "c.jsonl", server.url, tiny_bundle)
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        try:
            _wait_for(lambda: len(server.requests) == 2)
            process.send_signal(signal.SIGINT)
            _, told = process.communicate(timeout=30)
        finally:
            process.kill()
    assert process.returncode == 130
    assert "Traceback" not in told


def test_a_defect_is_told_and_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: object, client: object, key: str) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(EndpointCaptioner, "_one", broken)
    monkeypatch.setattr("threading.excepthook", lambda arguments: None)
    keys = _images(tmp_path / "in", 4)
    with pytest.raises(CaptionError, match="broke down"):
        list(_captioner(tmp_path / "in", "http://127.0.0.1:9/v1").caption(keys))


def _n_lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def _finish(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def _rows(path: Path) -> list[dict[str, str]]:
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    import pyarrow.parquet as pq

    return list(pq.read_table(path).to_pylist())
