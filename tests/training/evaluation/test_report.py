"""The report: whole in one file, safe whatever things are called, and of any card there is."""

from __future__ import annotations

import base64
import hashlib
import io
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from robustzs_training.evaluation.report import plots, write_report
from robustzs_training.evaluation.report.choice import headline_attack, on_labels
from robustzs_training.evaluation.report.examples import pictures, steps
from robustzs_training.evaluation.report.page import render
from robustzs_training.evaluation.report.plots import accuracy_against_eps, plots_of
from robustzs_training.evaluation.report.tables import banners, headlines

from robustzs.cards.averages import averages_of
from robustzs.cards.schema import Card, Check, Dataset
from robustzs.errors import EvaluationError, UsageError
from tests.training.evaluation.report_cards import (
    HOSTILE,
    attack,
    card,
    curve,
    example,
    flat,
    one_result,
    path,
)

VOID = {"meta", "img", "br", "rect"}


class Page(HTMLParser):
    """What a browser would find, and a check that tags close in order."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.style = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "style":
            self.style += data
        else:
            self.text += f" {data}"

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [found for name, found in self.tags if name == tag]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report") / "deep" / "out"
    write_report(
        card(), folder, examples=[example()], curves=[curve(), curve("under attack", seed=1)]
    )
    return folder


def test_the_page_is_whole_and_the_plots_lie_beside_it(written: Path) -> None:
    files = sorted(path.name for path in written.iterdir())
    assert files == ["accuracy-eps.png", "report.html", "risk-coverage.png", "robust-depth.png"]
    page = Page((written / "report.html").read_text(encoding="utf-8"))
    embedded = [str(image["src"]).partition(",")[2] for image in page.all("img")]
    assert base64.b64decode(embedded[0]) == (written / "accuracy-eps.png").read_bytes()
    assert len(embedded) == 3 + 3
    for data in embedded:
        assert Image.open(io.BytesIO(base64.b64decode(data))).format == "PNG"


def test_nothing_is_asked_of_the_network_and_nothing_runs(written: Path) -> None:
    page = Page((written / "report.html").read_text(encoding="utf-8"))
    names = {tag for tag, _ in page.tags}
    assert not names & {"script", "link", "iframe", "object", "base", "form", "a"}
    for tag, attributes in page.tags:
        assert not {"style", "srcset", "href"} & attributes.keys()
        assert not [name for name in attributes if name.startswith("on")]
        if tag == "img":
            assert str(attributes["src"]).startswith("data:image/png;base64,")
    assert "url(" not in page.style
    assert "@import" not in page.style
    (policy,) = [
        str(meta["content"])
        for meta in page.all("meta")
        if meta.get("http-equiv") == "Content-Security-Policy"
    ]
    assert policy.startswith("default-src 'none'; img-src data:;")
    digest = base64.b64encode(hashlib.sha256(page.style.encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}'" in policy


def test_whoever_does_not_see_the_page_is_told_the_same(written: Path) -> None:
    page = Page((written / "report.html").read_text(encoding="utf-8"))
    assert page.all("html")[0]["lang"] == "en"
    assert all(image["alt"] for image in page.all("img"))
    assert "autoattack, Linf 1/255: 54.0%" in str(page.all("img")[0]["alt"])
    assert all(header["scope"] in ("row", "col") for header in page.all("th"))
    assert len(page.all("caption")) == len(page.all("table"))


def test_numbers_come_with_their_protocol(written: Path) -> None:
    text = " ".join(Page((written / "report.html").read_text(encoding="utf-8")).text.split())
    assert "clean top-1 80.0%" in text
    assert "robust at 1/255 54.0% 47.8 to 60.1" in text
    assert "100 steps, loss ce, white-box, perturbation in the model input" in text
    assert "250 images of 999, drawn by seed 3" in text
    assert "Verdicts are of the torch model in float32." in text
    assert "parts here" in text


def test_a_rerun_writes_the_same_bytes(written: Path, tmp_path: Path) -> None:
    write_report(
        card(), tmp_path, examples=[example()], curves=[curve(), curve("under attack", seed=1)]
    )
    for path_ in written.iterdir():
        assert (tmp_path / path_.name).read_bytes() == path_.read_bytes()


def test_names_from_anywhere_are_text(tmp_path: Path) -> None:
    hostile = example(
        key=HOSTILE,
        truth=HOSTILE,
        dataset=HOSTILE,
        clean_path=path("entity", HOSTILE),
        adversarial_path=path("entity", HOSTILE + "2"),
    )
    made = card(names=("_" + HOSTILE, "日本語 \u05d0\u05d1"), preset=HOSTILE, protocol=(HOSTILE,))
    write_report(made, tmp_path, examples=[hostile], curves=[curve(HOSTILE)])
    source = (tmp_path / "report.html").read_text(encoding="utf-8")
    page = Page(source)
    assert not page.all("script")
    assert "<script>alert(1)</script>\"'&{{7*7}}" in page.text
    assert "\\u202egnp.exe\\x1b[31m\\x00" in page.text
    assert not set("\u202e\x1b\x00") & set(source)
    assert "日本語" in page.text
    texts = [str(image["alt"]) for image in page.all("img")]
    assert any("<script>" in text for text in texts)


def test_a_lone_surrogate_of_a_file_name_does_not_stop_it(tmp_path: Path) -> None:
    write_report(one_result(), tmp_path, examples=[example(key="caf\udce9.png")])
    assert "caf\\udce9.png" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_one_radius_without_depths_curves_or_images() -> None:
    made = one_result()
    plots = plots_of(made)
    assert [plot.name for plot in plots] == ["accuracy-eps"]
    page = Page(render(made, plots))
    assert "Images that the attack turned" not in page.text
    assert "In the tree" not in page.text
    assert "Further numbers" not in page.text


def test_a_run_that_was_cut_off_says_so_first() -> None:
    cut = one_result(
        complete=False,
        incomplete_reason="interrupted",
        datasets=(Dataset(name="photographs", digest="b" * 64, n=900, n_labels=6),),
    )
    text = Page(render(cut, [])).text
    assert text.index("not complete") < text.index("In short")
    assert "interrupted" in text


def test_refused_numbers_leave_the_reasons(tmp_path: Path) -> None:
    refused = one_result(
        results=(),
        complete=False,
        incomplete_reason="checks refuse the numbers",
        checks=(Check(name="gradients", passed=False, message="all are zero"),),
    )
    write_report(refused, tmp_path)
    assert [path_.name for path_ in tmp_path.iterdir()] == ["report.html"]
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert "The check gradients failed: all are zero" in page.text
    assert "There are no results." in page.text
    assert "In short" not in page.text


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"name": "pgd"}, "is a verdict on its own"),
        (
            {"saw_defence": False, "knowledge": "transfer"},
            "did not see the model as it is deployed",
        ),
    ],
)
def test_weak_evidence_is_called_weak(changes: dict[str, Any], said: str) -> None:
    by = attack(**{"name": "apgd-ce", "eps": "1/255", **changes})
    made = one_result(attacks=(by,), results=(flat("photographs", by, 0.8, 0.3),))
    assert any(said in banner.text for banner in banners(made))
    assert not any(said in banner.text for banner in banners(one_result()))


def test_transfer_and_drawn_pictures_are_marked() -> None:
    by = attack("apgd-ce", "1/255")
    made = one_result(
        attacks=(by,),
        results=(flat("photographs", by, 0.8, 0.3, transfer_only=True),),
        datasets=(Dataset(name="photographs", digest="b" * 64, n=250, n_labels=6, synthetic=True),),
    )
    text = Page(render(made, [])).text
    assert "transfer only" in text
    assert "drawn or composed, not photographed" in text


def test_the_strongest_attack_is_the_headline() -> None:
    made = card()
    assert headline_attack(on_labels(made.results)) == "autoattack"
    (first, _) = headlines(made)
    assert [(eps, share.text) for eps, share in first.robust] == [
        ("1/255", "54.0%"),
        ("2/255", "28.0%"),
    ]
    weak = [row for row in on_labels(made.results) if row.attack == "pgd"]
    assert headline_attack(weak) == "pgd"


def test_radii_that_were_measured_are_marked_and_no_others() -> None:
    from matplotlib.figure import Figure

    axes = Figure().subplots()
    shown = card()
    plots._eps_panel(axes, shown, on_labels(shown.results))
    assert [text.get_text() for text in axes.get_xticklabels()] == ["0", "1", "2"]


def test_two_norms_have_a_panel_each() -> None:
    one, two = attack("apgd-ce", "1/255"), attack("apgd-ce", "0.5", norm="L2")
    both = one_result(
        attacks=(one, two),
        results=(flat("photographs", one, 0.8, 0.3), flat("photographs", two, 0.8, 0.2)),
    )
    narrow, wide = accuracy_against_eps(one_result()), accuracy_against_eps(both)
    assert narrow is not None
    assert wide is not None
    sizes = [Image.open(io.BytesIO(plot.png)).width for plot in (narrow, wide)]
    assert sizes[1] > 1.5 * sizes[0]
    assert "L2 0.5: 20.0%" in wide.alt


# ---- examples ------------------------------------------------------------------------------------


def test_perturbations_are_amplified_around_grey() -> None:
    clean = np.full((2, 3, 3), 100, np.uint8)
    adversarial = clean.copy()
    adversarial[0, 0] = (103, 98, 100)
    _, perturbation, _ = pictures(example(clean=clean, adversarial=adversarial))
    assert perturbation[0, 0].tolist() == [188, 88, 128]
    assert perturbation[1, 1].tolist() == [128, 128, 128]


def test_floats_show_what_8_bits_would_hide() -> None:
    clean = np.full((2, 2, 3), 0.5, np.float32)
    _, perturbation, _ = pictures(example(clean=clean, adversarial=clean + np.float32(0.3 / 255)))
    assert perturbation[0, 0].tolist() == [134, 134, 134]


@pytest.mark.parametrize(
    "clean",
    [
        np.zeros((24, 20), np.uint8),
        np.zeros((3, 24, 20), np.float32),
        np.full((24, 20, 3), 2.0, np.float32),
        np.full((24, 20, 3), np.nan, np.float32),
        np.zeros((4, 4, 3), np.uint8),
    ],
)
def test_images_of_another_kind_are_refused(clean: np.ndarray[Any, Any]) -> None:
    with pytest.raises(EvaluationError, match="tabby"):
        pictures(example(clean=clean))


def test_paths_part_once_and_stay_apart() -> None:
    rows = steps(example(clean_path=path("a", "b", "c", "d"), adversarial_path=path("a", "x", "c")))
    assert [row.parting for row in rows] == [False, True, False, False]
    assert [row.apart for row in rows] == [False, True, True, True]
    assert rows[3].adversarial is None


def test_only_the_first_examples_are_shown() -> None:
    page = Page(render(one_result(), [], [example(key=f"{k}.png") for k in range(15)]))
    assert len(page.all("article")) == 12
    assert "The first 12 of 15." in page.text


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=re.escape("file")):
        write_report(one_result(), tmp_path / "file" / "out")


def test_a_card_that_was_read_again_gives_the_same_page() -> None:
    made = card()
    again = Card.model_validate_json(made.to_json())
    assert render(again, []) == render(made, [])


def test_averages_say_which_sets_they_are_over() -> None:
    shown = card()
    page = render(shown, ())
    assert "Averages over data sets" not in page
    averages = averages_of(shown.results, left_out=("nothing",), n_wanted=13)
    page = render(shown.model_copy(update={"averages": averages}), ())
    assert "Averages over data sets" in page
    assert page.count("2 of 13 sets (photographs, drawings)") == len(averages) == 4
