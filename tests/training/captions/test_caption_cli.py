"""`robustzs caption` as people call it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from robustzs.cli.main import main
from tests.chat_server import Answer, Server, said, serving
from tests.cli.conftest import Result

PHOTOS = Path(__file__).parents[3] / "examples" / "photos"
TABBY = (
    "a photo of a tabby cat, a kind of domestic cat with a grey or tawny coat mottled with black"
)

Run = Callable[[Sequence[object]], Result]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the command line in this process."""

    def call(arguments: Sequence[object]) -> Result:
        with pytest.raises(SystemExit) as stopped:
            main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return Result(int(stopped.value.code or 0), captured.out, captured.err)

    return call


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three photographs in class folders: by wnid, by name, and one that WordNet lacks."""
    root = tmp_path / "in"
    for place, photo in {
        "n02123045": "chelsea.png",
        "coffee_mug": "coffee.jpg",
        "quadcopterish": "rocket.jpg",
    }.items():
        (root / place).mkdir(parents=True)
        shutil.copy(PHOTOS / photo, root / place)
    return root


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with serving(lambda body, n: said("a thing", 1_000_000, 500_000)) as running:
        yield running


def _rows(path: Path) -> dict[str, dict[str, str]]:
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    return {row.pop("key"): row for row in rows}


def test_gloss_captions_tell_class_kind_and_looks(run: Run, folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "captions.jsonl"
    result = run(["caption", folder, "-o", output])
    assert result.code == 0, result.err
    assert result.out == f"{output}\n"
    assert "3 of 3 images have a caption, 3 new" in result.err
    assert "quadcopterish" in result.err
    rows = _rows(output)
    assert list(rows) == sorted(rows)
    assert rows["n02123045/chelsea.png"] == {
        "caption": TABBY,
        "source": "gloss",
        "prompt": "names and properties",
        "model": "WordNet 3.0",
    }
    assert rows["coffee_mug/coffee.jpg"]["caption"].startswith("a photo of a coffee mug, a mug")
    assert rows["quadcopterish/rocket.jpg"]["caption"] == "a photo of a quadcopterish"


def test_names_alone_are_another_table(run: Run, folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "captions.jsonl"
    assert run(["caption", folder, "-o", output]).code == 0
    mixed = run(["caption", folder, "-o", output, "--names-only"])
    assert mixed.code == 1
    assert "was begun with prompt 'names and properties', now 'names'" in mixed.err
    assert run(["caption", folder, "-o", output, "--names-only", "--force"]).code == 0
    assert _rows(output)["n02123045/chelsea.png"]["caption"] == "a photo of a tabby cat"


def test_new_images_are_added_and_failed_ones_tried_again(
    run: Run, folder: Path, tmp_path: Path
) -> None:
    output = tmp_path / "captions.parquet"
    shutil.copy(PHOTOS / "rocket.jpg", folder)
    first = run(["caption", folder, "-o", output])
    assert first.code == 1
    assert "3 of 4 images" in first.err
    assert "failed: 1 no-class" in first.err
    shutil.copy(PHOTOS / "coffee.jpg", folder / "n02123045")
    second = run(["caption", folder, "-o", output])
    assert "4 of 5 images have a caption, 1 new" in second.err


def test_an_endpoint_is_asked_and_its_tokens_are_paid(
    run: Run, folder: Path, tmp_path: Path, server: Server, tiny_bundle: Path
) -> None:
    output = tmp_path / "captions.jsonl"
    asked = ["caption", folder, "-o", output, "--source", "openai", "--url", server.url]
    asked += ["--model", "tiny", "--tower", tiny_bundle]
    asked += ["--price-in-per-million", 2, "--price-out-per-million", 4]
    stopped = run([*asked, "--max-cost", 3, "--concurrency", 1])
    assert stopped.code == 1
    assert "1 of 3 images" in stopped.err
    assert "stopped at --max-cost" in stopped.err
    result = run(asked)
    assert result.code == 0, result.err
    assert (
        "3000000 tokens read and 1500000 written, earlier runs included, cost 12.00" in result.err
    )
    assert {row["model"] for row in _rows(output).values()} == {"tiny"}
    assert len(server.requests) == 3


def test_captions_that_the_text_tower_cuts_are_told(
    run: Run, folder: Path, tmp_path: Path, tiny_bundle: Path
) -> None:
    def long_answer(body: object, number: int) -> Answer:
        return said("word " * 200)

    with serving(long_answer) as server:
        asked = ["caption", folder, "-o", tmp_path / "c.jsonl", "--source", "openai"]
        asked += ["--url", server.url, "--model", "tiny"]
        for tower in (tiny_bundle, "clip"):
            result = run([*asked, "--tower", tower])
            assert "warning: 3 captions are longer than the" in result.err
    assert "77 tokens that clip reads" in result.err
    assert "202: coffee_mug/coffee.jpg" in result.err


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["-o", "c.csv"], 2, "cannot be written as"),
        (["-o", "c.jsonl", "--source", "openai"], 2, "needs --url and --model"),
        (["-o", "no/such/c.jsonl"], 1, "cannot write"),
        (
            [
                "-o",
                "c.jsonl",
                "-s",
                "openai",
                "-m",
                "x",
                "--url",
                "http://127.0.0.1:9/v1",
                "--retries",
                "0",
                "--limit",
                "2",
            ],
            1,
            "failed: 2 chat-unavailable",
        ),
        (["-o", "c.jsonl", "-s", "transformers", "-m", "no/such/folder"], 1, "cannot be loaded"),
    ],
)
def test_what_cannot_be_is_told(
    run: Run,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    code: int,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    result = run(["caption", folder, *arguments])
    assert result.code == code
    assert message in result.err


def test_a_table_of_somebody_else_is_not_replaced(run: Run, folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "captions.jsonl"
    output.write_text("precious\n")
    refused = run(["caption", folder, "-o", output])
    assert refused.code == 2
    assert "--force" in refused.err
    assert output.read_text() == "precious\n"


def test_splits_are_captioned_one_by_one(run: Run, folder: Path, tmp_path: Path) -> None:
    root = tmp_path / "data"
    root.mkdir()
    folder.rename(root / "train")
    refused = run(["caption", root, "-o", tmp_path / "c.jsonl"])
    assert refused.code == 2
    assert str(root / "train") in refused.err
    assert run(["caption", root / "train", "-o", tmp_path / "c.jsonl"]).code == 0


def test_the_table_is_what_training_reads(run: Run, folder: Path, tmp_path: Path) -> None:
    from robustzs_training.data.captions_table import read_captions

    tables = []
    for suffix in ("jsonl", "parquet"):
        output = tmp_path / f"captions.{suffix}"
        assert run(["caption", folder, "-o", output]).code == 0
        tables.append(read_captions(output))
    for table in tables:
        rows = dict(zip(table.keys, table.captions, strict=True))
        assert rows["n02123045/chelsea.png"] == TABBY
        assert len(rows) == 3
