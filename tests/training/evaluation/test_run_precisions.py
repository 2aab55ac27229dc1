"""`robustzs evaluate` on deployed precisions: rows, labels, checks, and the same card again."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnxruntime.quantization import quantize_dynamic
from robustzs_training.evaluation.checks import check_leftovers
from robustzs_training.evaluation.evaluate_command import EvaluateOutcome, run_evaluate
from robustzs_training.evaluation.precisions import choose_variants
from robustzs_training.evaluation.report import write_report
from robustzs_training.evaluation.request import EvaluateRequest, parse_threats

from robustzs.bundle.store import Bundle
from robustzs.cards.reading import make_deployed
from robustzs.cards.rows import measured_rows
from robustzs.cards.schema import Card
from robustzs.cli.evaluate import EvaluateFormat, _conclude
from robustzs.errors import CardError, UsageError
from tests.training.evaluation.measured_worlds import (
    NAMES,
    answered_pictures,
    tiny_bundle,
    unseen,
)

PAIRS = ("fp32/fp32", "fp32/int8", "int8/fp32", "int8/int8")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny bundle with weights whose encoders are there in float32 and in int8."""
    folder = tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny")
    manifest = json.loads((folder / "bundle.json").read_text(encoding="utf-8"))
    for kind in ("image", "text"):
        small = folder / f"{kind}_encoder.int8.onnx"
        quantize_dynamic(folder / f"{kind}_encoder.onnx", small)
        manifest[f"{kind}_encoders"]["int8"] = small.name
        data = small.read_bytes()
        record = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
        manifest["files"][small.name] = record
    (folder / "bundle.json").write_text(json.dumps(manifest), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def request_of(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> EvaluateRequest:
    table = answered_pictures(tmp_path_factory.mktemp("data") / "pictures", bundle, n=12)
    return EvaluateRequest(
        model=str(bundle),
        data=(str(table),),
        threats=parse_threats("4/255,8/255"),
        attacks=("apgd-ce",),
        labels=",".join(NAMES),
        precisions=("int8/fp32", "default"),
        n_steps=4,
        n_queries=20,
        batch_size=4,
        device="cpu",
    )


def _run(request: EvaluateRequest, **changes: Any) -> tuple[EvaluateOutcome, list[str]]:
    said: list[str] = []
    return run_evaluate(replace(request, **changes), say=said.append, progress=unseen), said


@pytest.fixture(scope="module")
def measured(
    request_of: EvaluateRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Card, Path]:
    output = tmp_path_factory.mktemp("measured") / "out"
    card = _run(request_of, output=output)[0].card
    assert card is not None
    return card, output


def test_every_precision_is_asked_and_those_named_are_attacked(
    measured: tuple[Card, Path],
) -> None:
    card, _ = measured
    assert card.complete, card.incomplete_reason
    assert tuple(each.precision for each in card.deployed) == PAIRS
    rows = [(r.precision, r.attack, r.eps, r.transfer_only) for r in card.results]
    assert rows == [
        (None, "apgd-ce", "4/255", False),
        (None, "apgd-ce", "8/255", False),
        ("fp32/fp32", "deployed-worst", "4/255", False),
        ("fp32/fp32", "deployed-worst", "8/255", False),
        ("int8/fp32", "deployed-worst", "4/255", False),
        ("int8/fp32", "deployed-worst", "8/255", False),
    ]
    for small, large in ((2, 3), (4, 5)):
        assert card.results[large].n_robust <= card.results[small].n_robust
    assert card.results[5].n_robust < card.results[5].n_clean
    attack = next(each for each in card.attacks if each.name == "deployed-worst")
    assert (attack.eight_bit, attack.saw_defence, attack.n_steps) == (True, True, 4)
    assert attack.implementation == (
        "each picture's worst of apgd-ce on the twin, apgd-ce on the float32 torch, square on the "
        "deployed graph"
    )
    protocol = "\n".join(card.protocol)
    assert (
        "deployed in fp32/fp32 (image/text encoder), pixels of 8 bits: the twin is the" in protocol
    )
    assert "the ONNX graph in torch, weights as in the file, rounding straight-through" in protocol
    assert "pictures broken by part: " in protocol
    assert "; deployed in int8/fp32 " in card.robustness


def test_the_twins_are_checked_by_what_they_left(measured: tuple[Card, Path]) -> None:
    names = {check.name.split(":")[0] for check in measured[0].checks if "flat@int8" in check.name}
    assert names == {"transfer-not-stronger", "black-box-not-stronger"}
    passed = check_leftovers({"replays": 2, "square": 0}, 10)
    assert passed.passed
    failed = check_leftovers({"replays": 0, "square": 21}, 1000)
    assert [result.name for result in failed.results if not result.passed] == [
        "black-box-not-stronger"
    ]
    assert "21 of 1000" in failed.results[1].finding
    assert check_leftovers({"square": 20}, 1000).passed


def test_going_on_and_a_rerun_give_the_same_card(
    measured: tuple[Card, Path], request_of: EvaluateRequest, tmp_path: Path
) -> None:
    card, output = measured
    shutil.copytree(output, tmp_path / "out")
    journal = tmp_path / "out/state/journal-0.jsonl"
    lines = journal.read_text(encoding="utf-8").splitlines(keepends=True)
    journal.write_text("".join(lines[:-3]), encoding="utf-8")  # as a kill would leave it
    again, _ = _run(request_of, output=tmp_path / "out")
    assert again.card is not None
    assert again.card.canonical() == card.canonical()


def test_the_report_and_lists_show_the_precisions(
    measured: tuple[Card, Path], tmp_path: Path
) -> None:
    card, _ = measured
    page = write_report(card, tmp_path).read_text(encoding="utf-8")
    assert "deployed ONNX encoders" in page
    assert page.count("worst of twin, replay and Square") == 4
    assert page.count("<td>not attacked</td>") == 2
    measures = [row.measure for row in measured_rows(card.model_dump(mode="json"))]
    for pair in PAIRS:
        name = f"clean top-1, {card.datasets[0].name}, deployed in {pair}"
        assert measures.count(name) == 1


def test_the_table_names_the_encoders(
    measured: tuple[Card, Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    card, _ = measured
    _conclude(EvaluateOutcome(card=card), EvaluateFormat.text)
    lines = capsys.readouterr().out.splitlines()
    assert "encoders" in lines[2]
    rows = [line for line in lines if "deployed-worst" in line]
    assert len(rows) == 4
    assert sum("int8/fp32" in row for row in rows) == 2
    assert sum("torch fp32" in line for line in lines) == 2
    told = f"{card.datasets[0].name}, deployed in fp32/fp32: "
    (line,) = (line for line in lines if line.startswith(told))
    assert line.endswith("clean, 12 of 12 answers as in torch")


def test_without_being_asked_nothing_deployed_is_attacked(request_of: EvaluateRequest) -> None:
    outcome, _ = _run(request_of, precisions=(), threats=parse_threats("4/255"), n=4)
    assert outcome.card is not None
    assert [row.precision for row in outcome.card.results] == [None]
    assert len(outcome.card.deployed) == 4


def test_texts_in_fewer_bits_by_default_are_what_is_attacked(
    request_of: EvaluateRequest, bundle: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "small-text"
    shutil.copytree(bundle, folder)
    manifest = json.loads((folder / "bundle.json").read_text(encoding="utf-8"))
    manifest["default_text_precision"] = "int8"
    (folder / "bundle.json").write_text(json.dumps(manifest), encoding="utf-8")
    outcome, _ = _run(
        request_of, model=str(folder), precisions=(), threats=parse_threats("4/255"), n=6
    )
    assert outcome.card is not None
    first = outcome.card.deployed[0]
    assert (first.precision, first.n_as_measured) == ("fp32/int8", 6)
    assert any("as the bundle's own text graph of int8" in told for told in outcome.card.protocol)


def test_small_pictures_perturbed_in_their_own_pixels(
    request_of: EvaluateRequest, tmp_path: Path
) -> None:
    table = answered_pictures(tmp_path / "small", Path(request_of.model), n=4)
    outcome, _ = _run(
        request_of,
        data=(str(table),),
        native=True,
        precisions=("int8/fp32",),
        threats=parse_threats("8/255"),
    )
    assert outcome.card is not None
    assert outcome.card.results[-1].precision == "int8/fp32"
    assert {attack.space for attack in outcome.card.attacks} == {"native-pixels"}


def test_what_does_not_exist_or_fit_is_refused(request_of: EvaluateRequest) -> None:
    bundle = Bundle.load(request_of.model)
    assert [each.name for each in choose_variants(bundle, ("all",))] == list(PAIRS)
    assert [each.name for each in choose_variants(bundle, ("int8",))] == ["int8/fp32"]
    assert choose_variants(bundle, ()) == []
    with pytest.raises(UsageError, match="no encoders of fp16/fp32"):
        _run(request_of, precisions=("fp16",))
    with pytest.raises(UsageError, match="less than a PNG can hold"):
        _run(request_of, threats=parse_threats("0.5/255"))


def test_a_card_holds_no_precision_that_contradicts_it(measured: tuple[Card, Path]) -> None:
    document = measured[0].model_dump(mode="json")
    first = document["deployed"][0]
    for change, message in (
        ({"dataset": "other"}, "is missing"),
        ({"n_clean": first["n"] + 1}, "alike of"),
        ({"clean_accuracy": 0.5}, "is not"),
    ):
        deployed = [{**first, **change}]
        with pytest.raises(ValueError, match=message):
            Card.model_validate({**document, "deployed": deployed})
    with pytest.raises(ValueError, match="twice"):
        Card.model_validate({**document, "deployed": [first, first]})
    other = make_deployed(
        np.zeros(first["n"], np.bool_), np.ones(first["n"], np.bool_),
        dataset=first["dataset"], precision=first["precision"],
    )  # fmt: skip
    with pytest.raises(ValueError, match="before an attack"):
        Card.model_validate({**document, "deployed": [other.model_dump(mode="json")]})
    with pytest.raises(CardError, match="not of the same images"):
        make_deployed([], [], dataset="d", precision="fp32/fp32")
