"""Whole rows on a tiny model: trained, measured, cut off, gone on with, reported."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from robustzs_training.study.measure import Pictures
from robustzs_training.study.protocol import FASHION, PHOTOGRAPHS, SETS
from robustzs_training.study.report import BEGIN, END, write_report
from robustzs_training.study.results import RowResult, read_result, read_results, result_path
from robustzs_training.study.rows import START, row_names
from robustzs_training.study.runner import run_rows
from robustzs_training.study.start import start_bundle

from robustzs.bundle.store import Bundle
from robustzs.errors import CardError, DatasetNotFoundError, UsageError
from tests.training.evaluation.measured_worlds import tiny_bundle
from tests.training.study.study_worlds import study_of, unseen, write_study

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny", temperature=0.5)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Pictures:
    return write_study(tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="module")
def finished(
    model: Path, pictures: Pictures, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[RowResult]]:
    """The start model, FARE and QT-AFT."""
    output = tmp_path_factory.mktemp("output")
    study = study_of(pictures, output, model)
    return output, run_rows(study, [START, "fare", "qt-aft"], say=_silent, progress=unseen)


def _silent(line: str) -> None:
    del line


def _numbers(result: RowResult) -> str:
    """Everything but times."""
    cards = {name: card.model_copy(update={"timings": None}) for name, card in result.cards.items()}
    return json.dumps([{k: c.model_dump(mode="json") for k, c in cards.items()}, result.clean])


def test_a_row_says_what_it_is(finished: tuple[Path, list[RowResult]]) -> None:
    output, (start, fare, qt_aft) = finished
    assert read_result(result_path(output, "fare", 0)) == fare
    assert start.recipe is None
    assert start.training is None
    assert fare.recipe is not None
    assert fare.training is not None
    assert fare.training["steps"] == 2
    assert fare.bundle == Bundle.load(output / "fare" / "seed-0").digest
    assert len({start.bundle, fare.bundle, qt_aft.bundle}) == 3
    assert {"training", "export", "evaluation"} <= set(fare.seconds)
    assert fare.versions["torch"]
    for row in (start, fare, qt_aft):
        assert set(row.cards) == set(SETS)
        for name, card in row.cards.items():
            assert card.complete, (name, card.incomplete_reason)
            assert card.datasets[0].n == row.clean[name][1] == 8


def test_which_attack_meets_which_set(finished: tuple[Path, list[RowResult]]) -> None:
    _, (start, *_) = finished
    own = {
        name: {
            (r.attack, r.eps, r.attacked_depth, r.attacked_meaning)
            for r in card.results
            if (r.depth, r.meaning) == (r.attacked_depth, r.attacked_meaning)
        }
        for name, card in start.cards.items()
    }
    labels = {("apgd-ce", "1/255", None, "flat"), ("apgd-ce", "2/255", None, "flat")}
    assert own[FASHION] == labels
    assert own[PHOTOGRAPHS] == {
        *labels,
        ("captions", "1/255", None, "flat"),
        ("features", "1/255", None, "flat"),
        ("worst", "1/255", None, "flat"),
        *(
            ("apgd-ce", "1/255", depth, meaning)
            for depth in (3, 4)
            for meaning in ("rollup", "prompt")
        ),
    }
    assert start.clean[PHOTOGRAPHS][0] > 0  # or no attack was tried


def test_a_finished_row_is_left_alone(
    finished: tuple[Path, list[RowResult]], pictures: Pictures, model: Path
) -> None:
    output, (_, fare, _) = finished
    said: list[str] = []
    again = run_rows(study_of(pictures, output, model), ["fare"], say=said.append, progress=unseen)
    assert again == [fare]
    assert said == ["FARE, seed 0: finished before"]
    other = study_of(pictures, output, model, changes=("optimizer.lr=1e-5",))
    with pytest.raises(UsageError, match="made with other changes"):
        run_rows(other, ["fare"], say=_silent, progress=unseen)


def test_a_row_that_is_cut_off_goes_on(
    finished: tuple[Path, list[RowResult]], pictures: Pictures, model: Path, tmp_path: Path
) -> None:
    _, (_, fare, _) = finished
    study = study_of(pictures, tmp_path, model)
    said: list[str] = []

    def stop(line: str) -> None:
        said.append(line)
        if "held-out-photographs" in line and "stand under" in line:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_rows(study, ["fare"], say=stop, progress=unseen)
    assert not result_path(tmp_path, "fare", 0).exists()
    weights = tmp_path / "fare" / "seed-0" / "weights.safetensors"
    journal = next((tmp_path / "fare").rglob("journal-0.jsonl"))
    before, trained = journal.read_text("utf-8"), weights.stat().st_mtime_ns
    (again,) = run_rows(study, ["fare"], say=_silent, progress=unseen)
    assert journal.read_text("utf-8").startswith(before)
    assert weights.stat().st_mtime_ns == trained
    assert _numbers(again) == _numbers(fare)


def test_what_is_missing_is_told_before_any_work(
    pictures: Pictures, model: Path, tmp_path: Path
) -> None:
    nothing = Pictures(data=tmp_path, photographs=pictures.photographs)
    with pytest.raises(DatasetNotFoundError, match=r"captions\.parquet"):
        run_rows(study_of(nothing, tmp_path, model), ["fare"], say=_silent, progress=unseen)


def test_another_resolution_is_another_bundle(model: Path, tmp_path: Path) -> None:
    assert start_bundle(tmp_path, 32, model=str(model)) == model
    with pytest.raises(UsageError, match="8 pixels"):
        start_bundle(tmp_path, 8, model=str(model))


class TestReport:
    def test_tables_and_plots(self, finished: tuple[Path, list[RowResult]], tmp_path: Path) -> None:
        output, rows = finished
        page = tmp_path / "README.md"
        page.write_text(f"# Mine\n\n{BEGIN}\nof yesterday\n{END}\n\nAnd this.\n", encoding="utf-8")
        written = write_report(output, tmp_path)
        text = page.read_text("utf-8")
        assert text.startswith("# Mine\n")
        assert text.endswith("And this.\n")
        assert "of yesterday" not in text
        for row in rows:
            assert f"| {row.label} |" in text
        assert [path.name for path in written] == [
            "README.md",
            "accuracy.png",
            "attacks.png",
            "depths.png",
        ]
        assert all(f"({path.name})" in text for path in written[1:])
        assert "do not compare" not in text
        n_right, n = rows[0].clean[FASHION]
        assert f"| before training | {n_right / n:.1%} (" in text
        first = {path.name: path.read_bytes() for path in written}
        write_report(output, tmp_path)
        assert {path.name: path.read_bytes() for path in written} == first

    def test_differences_are_against_fare(
        self, finished: tuple[Path, list[RowResult]], tmp_path: Path
    ) -> None:
        output, (start, fare, _) = finished
        write_report(output, tmp_path)
        text = (tmp_path / "README.md").read_text("utf-8")
        part = text.split("### Against FARE")[1].split("###")[0]
        change = (start.clean[FASHION][0] - fare.clean[FASHION][0]) / fare.clean[FASHION][1]
        line = next(line for line in part.splitlines() if line.startswith("| before training"))
        assert f"{change * 100:+.1f} (" in line.split("|")[-3]
        assert "| FARE |" not in part

    def test_a_page_without_a_place_is_left_alone(
        self, finished: tuple[Path, list[RowResult]], tmp_path: Path
    ) -> None:
        page = tmp_path / "README.md"
        page.write_text("mine\n", encoding="utf-8")
        with pytest.raises(UsageError, match="no place for the tables"):
            write_report(finished[0], tmp_path)
        assert page.read_text("utf-8") == "mine\n"

    def test_nothing_to_tell(self, tmp_path: Path) -> None:
        with pytest.raises(CardError, match="no row is finished"):
            write_report(tmp_path, tmp_path)

    def test_a_damaged_row_is_named(self, tmp_path: Path) -> None:
        path = result_path(tmp_path, "fare", 0)
        path.parent.mkdir()
        path.write_text("{}", encoding="utf-8")
        with pytest.raises(CardError, match=r"fare-seed0\.json is no result"):
            read_results(tmp_path, row_names())
