"""What robustzs-lite is hardened on, gathered from small folders of the same form."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import typer
from PIL import Image

pytest.importorskip("torch")

from robustzs_training.lite import training_pictures
from robustzs_training.lite.training_pictures import ALBUMS, THINGS, gather
from robustzs_training.study.data.compose import SIDE
from robustzs_training.study.data.grounds import Photograph
from robustzs_training.study.data.packages import Packages


def noise(path: Path, size: tuple[int, int] = (400, 300)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(len(path.name))
    pixels = generator.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A study of two pictures, and packages that hold two photographs, a surface and things."""
    packages = tmp_path / "packages"
    roots = {each.name: packages / each.name for each in (*THINGS, *ALBUMS)}
    albums = [packages / each.name / each.holds for each in ALBUMS]
    noise(albums[0] / "dog.jpg")
    noise(albums[0] / "icon.jpg", (64, 64))
    noise(albums[-1] / "far" / "hills.jpg")
    things = packages / THINGS[0].name / THINGS[0].holds / "animals"
    noise(packages / THINGS[1].name / THINGS[1].holds / "food" / "bread.jpg")
    noise(things / "scene.png")
    ball = Image.new("RGBA", (256, 256))
    ball.paste((250, 30, 30, 255), (40, 40, 216, 216))
    ball.save(things / "ball.png")
    listed = tuple(
        Photograph(
            key=f"{kind}/one",
            source="noise",
            place=str(noise(tmp_path / f"{kind}.png")),
            shows="noise",
            synset=None,
            is_ground=True,
            kind=kind,
        )
        for kind in ("photograph", "surface")
    )
    monkeypatch.setattr(training_pictures, "find_packages", lambda cache, which: Packages(roots))
    monkeypatch.setattr(training_pictures, "list_photographs", lambda packages: listed)
    monkeypatch.setattr(training_pictures, "_CROPS", {"study": 3, "surface": 2, "album": 1})
    monkeypatch.setattr(training_pictures, "_PER_THING", 2)
    noise(tmp_path / "study/train/n02084071/a.jpg", (SIDE, SIDE))
    noise(tmp_path / "study/val/n02121620/b.jpg", (SIDE, SIDE))
    noise(tmp_path / "study/train/photographs/c.jpg", (SIDE, SIDE))
    return tmp_path / "study"


def test_both_splits_all_photographs_and_things(study: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    found = gather(study, output, cache=tmp_path / "cache")
    assert found == {"drawings": 2, "photographs": 3 + 2 + 1 + 1, "things": 6}
    written = sorted(path.relative_to(output) for path in (output / "train").rglob("*.jpg"))
    folders = [path.parent.name for path in written]
    assert {name: folders.count(name) for name in folders} == {
        "n02084071": 1,
        "n02121620": 1,
        "photographs": 7,
        "qabcs-data": 4,
        "pysiogame": 2,
    }
    for path in written:
        with Image.open(output / path) as picture:
            assert (picture.size, picture.mode) == ((SIDE, SIDE), "RGB"), path


def test_a_second_call_makes_only_what_is_missing_and_the_same(study: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    gather(study, output, cache=tmp_path / "cache")
    made = sorted(output.glob("train/things/*/*.jpg")) + sorted(output.glob("train/photo*/*.jpg"))
    before = {path: path.read_bytes() for path in made}
    kept = made[0].stat().st_mtime_ns
    made[1].unlink()
    made[-1].unlink()
    gather(study, output, cache=tmp_path / "cache", jobs=2)
    assert {path: path.read_bytes() for path in made} == before
    assert made[0].stat().st_mtime_ns == kept


def test_an_empty_study_is_refused(tmp_path: Path, study: Path) -> None:
    with pytest.raises(typer.BadParameter, match="holds no pictures"):
        gather(tmp_path / "nothing", tmp_path / "out", cache=tmp_path / "cache")
