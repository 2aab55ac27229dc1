"""`robustzs evaluate` on a tiny bundle: the same card however the run went, and where it may go."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from robustzs_training.evaluation.checking import checks_after
from robustzs_training.evaluation.evaluate_command import run_evaluate
from robustzs_training.evaluation.insertion import put_into_bundle
from robustzs_training.evaluation.publish import Circumstances, Judged, card_of
from robustzs_training.evaluation.request import EvaluateRequest, parse_attacks, parse_threats
from robustzs_training.evaluation.run import Verdicts

from robustzs.bundle.store import Bundle
from robustzs.cards.reading import measured_digest, read_card
from robustzs.errors import (
    BundleWeightsMissingError,
    CardError,
    EvaluationStateError,
    UsageError,
)
from robustzs.labels.templates import get_templates
from tests.training.evaluation.evaluate_runs import evaluated
from tests.training.evaluation.measured_worlds import (
    some_pictures,
    trials_of,
)

TREE = """
things:
  animal:
    mammal: [cat, dog]
    fish: [goldfish]
  thing: [teapot, tree, car]
"""


def test_the_card_says_what_was_measured_and_how(
    measured: tuple[Any, Path, list[str]], bundle: Path, table: Path
) -> None:
    card, output, said = measured
    assert card.complete
    assert read_card(output / "card.json") == card
    assert card.model.digest == measured_digest(Bundle.load(bundle).manifest)
    (dataset,) = card.datasets
    assert (dataset.n, dataset.n_labels, dataset.seed) == (18, 6, 0)
    assert [(r.eps, r.depth, r.n, r.n_clean) for r in card.results] == [
        ("4/255", None, 18, 15),
        ("8/255", None, 18, 15),
    ]
    small, large = card.results
    assert large.n_robust <= small.n_robust <= 15
    assert large.n_robust < 15
    assert small.interval.low <= small.robust_accuracy <= small.interval.high
    for attack in card.attacks:
        assert attack.n_steps == 5
        assert attack.saw_defence
        assert attack.space == "model-input"
        assert "pyautoattack" in attack.implementation
    assert {"torch", "pyautoattack", "onnxruntime", "robustzs"} <= set(card.versions)
    names = {check.name for check in card.checks}
    wanted = ("deployed-agrees", "evaluation-mode", "gradient-not-zero", "limit")
    assert {f"{name}:{table.stem}" for name in wanted} <= names
    assert all(check.passed for check in card.checks)
    assert any("0 differently from torch" in sentence for sentence in card.protocol)
    ((precision, n_clean, alike),) = [
        (each.precision, each.n_clean, each.n_as_measured) for each in card.deployed
    ]
    assert (precision, n_clean, alike) == ("fp32/fp32", 15, 18)
    assert card.timings.parts
    assert any(line.startswith(f"{table.stem}: at most") for line in said)


def test_a_rerun_gives_the_same_card(
    measured: tuple[Any, Path, list[str]], request_of: EvaluateRequest
) -> None:
    outcome, _ = evaluated(request_of, batch_size=7)  # without an output, even
    assert outcome.card is not None
    assert outcome.path is None
    assert outcome.card.canonical() == measured[0].canonical()


def test_another_seed_is_another_card(
    measured: tuple[Any, Path, list[str]], request_of: EvaluateRequest
) -> None:
    outcome, _ = evaluated(request_of, seed=1, n=9, keep_outcomes=False)
    assert outcome.card is not None
    assert outcome.card.digest != measured[0].digest
    assert outcome.card.datasets[0].n == 9
    assert outcome.card.datasets[0].n_available == 18
    assert all(result.outcomes is None for result in outcome.card.results)


def test_a_finished_run_is_read_not_repeated(
    measured: tuple[Any, Path, list[str]], request_of: EvaluateRequest, tmp_path: Path
) -> None:
    shutil.copytree(measured[1], tmp_path / "out")
    journal = (tmp_path / "out/state/journal-0.jsonl").read_bytes()
    outcome, said = evaluated(request_of, output=tmp_path / "out")
    assert outcome.card is not None
    assert outcome.card.canonical() == measured[0].canonical()
    assert (tmp_path / "out/state/journal-0.jsonl").read_bytes() == journal
    assert not any("at most" in line for line in said)


def test_a_folder_of_another_measurement_is_refused(
    measured: tuple[Any, Path, list[str]], request_of: EvaluateRequest, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    shutil.copytree(measured[1], output)
    with pytest.raises(EvaluationStateError, match=r"holds another measurement.*n_steps"):
        evaluated(request_of, output=output, n_steps=6)
    with pytest.raises(EvaluationStateError, match="seed"):
        evaluated(request_of, output=output, seed=3)


def test_time_that_runs_out_leaves_a_card_that_says_so(
    measured: tuple[Any, Path, list[str]], request_of: EvaluateRequest, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    outcome, _ = evaluated(request_of, output=output, max_minutes=1e-9)
    card = outcome.card
    assert card is not None
    assert not card.complete
    assert card.results == ()
    assert "--max-minutes" in (card.incomplete_reason or "")
    with pytest.raises(CardError, match="not complete"):
        put_into_bundle(card, Bundle.load(request_of.model))
    outcome, _ = evaluated(request_of, output=output)
    assert outcome.card is not None
    assert outcome.card.canonical() == measured[0].canonical()


def test_ctrl_c_leaves_a_card_of_what_there_is(
    measured: tuple[Any, Path, list[str]], request_of: EvaluateRequest, tmp_path: Path
) -> None:
    reports = []

    @contextlib.contextmanager
    def pressing(title: str) -> Iterator[Any]:
        def report(done: int, total: int) -> None:
            del done, total
            if "apgd" in title:
                reports.append(title)
            if len(reports) == 2:
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(1.0)

        yield report

    request = replace(request_of, output=tmp_path / "out")
    outcome = run_evaluate(request, say=lambda line: None, progress=pressing)
    card = outcome.card
    assert outcome.interrupted
    assert card is not None
    assert not card.complete
    assert card.incomplete_reason == "interrupted"
    (part,) = card.results
    assert 8 <= part.n < 18
    assert json.loads((tmp_path / "out/card.json").read_text())["complete"] is False
    again, _ = evaluated(request)
    assert again.card is not None
    assert again.card.canonical() == measured[0].canonical()


def test_every_attack_and_the_worst_of_them(request_of: EvaluateRequest) -> None:
    outcome, _ = evaluated(
        request_of,
        attacks=parse_attacks("apgd-ce, PGD,square"),
        threats=parse_threats("8/255"),
        n_queries=20,
        n=8,
    )
    assert outcome.card is not None
    rows = {result.attack: result for result in outcome.card.results}
    assert list(rows) == ["apgd-ce", "pgd", "square", "worst"]
    assert rows["worst"].n_robust <= min(row.n_robust for row in rows.values())
    attacks = {attack.name: attack for attack in outcome.card.attacks}
    assert attacks["square"].knowledge == "black-box"
    assert attacks["pgd"].step_size == pytest.approx(2.0 / 255.0)
    assert "apgd-ce, pgd, square" in attacks["worst"].implementation
    assert "under worst" in outcome.card.robustness


def test_depths_are_attacked_on_their_own_loss(request_of: EvaluateRequest, tmp_path: Path) -> None:
    tree = tmp_path / "tree.yaml"
    tree.write_text(TREE, encoding="utf-8")
    outcome, _ = evaluated(
        request_of,
        hierarchy=str(tree),
        depths=("1",),
        threats=parse_threats("8/255"),
        n=8,
        output=tmp_path / "out",
        report=True,
    )
    card = outcome.card
    assert outcome.report is not None
    page = outcome.report.read_text(encoding="utf-8")
    assert "animal" in page
    assert page.count("data:image/png") > 3
    assert card is not None
    assert card.complete
    assert card.datasets[0].hierarchy is not None
    keys = {(r.attacked_depth, r.attacked_meaning, r.depth, r.meaning) for r in card.results}
    questions = [(None, "flat"), (1, "rollup"), (1, "prompt")]
    assert keys == {(*attacked, *asked) for attacked in questions for asked in questions}
    between = {check.name for check in card.checks if check.name.startswith("own-loss-not-weaker")}
    names = ("flat", "rollup:1", "prompt:1")
    assert len(between) == len(names) * (len(names) - 1)
    assert "own-loss-not-weaker:rollup:1:flat:data:apgd-ce Linf:8/255" in between
    flat = next(r for r in card.results if r.depth is None and r.attacked_depth is None)
    assert {"hf", "hd1", "haurc"} <= set(flat.metrics)
    again, _ = evaluated(
        request_of,
        hierarchy=str(tree),
        depths=("1",),
        threats=parse_threats("8/255"),
        n=8,
        output=tmp_path / "out",
    )
    assert again.card is not None
    assert again.card.canonical() == card.canonical()


def test_captions_and_other_prompts_guide_attacks(
    request_of: EvaluateRequest, table: Path, tmp_path: Path
) -> None:
    names = [line.split(",")[0] for line in table.read_text(encoding="utf-8").splitlines()[1:]]
    captions = tmp_path / "captions.jsonl"
    captions.write_text(
        "".join(
            json.dumps({"key": name, "caption": f"picture number {number}"}) + "\n"
            for number, name in enumerate(names)
        ),
        encoding="utf-8",
    )
    wanted = {"attacks": parse_attacks("captions,prompts"), "n": 6, "max_minutes": None}
    wanted["threats"] = parse_threats("8/255")
    outcome, _ = evaluated(request_of, **wanted, captions=captions, prompts="a drawing of a {}")
    assert outcome.card is not None
    assert [r.attack for r in outcome.card.results] == ["captions", "prompts", "worst"]
    for missing in ("captions", "prompts"):
        given = {"captions": captions, "prompts": "a drawing of a {}", missing: None}
        with pytest.raises(UsageError, match=f"the attack '{missing}' needs"):
            evaluated(request_of, **wanted, **given)


# ---- refusals ------------------------------------------------------------------------------------


def test_a_bundle_without_weights_is_refused(
    bundle: Path, request_of: EvaluateRequest, tmp_path: Path
) -> None:
    folder = tmp_path / "bare"
    shutil.copytree(bundle, folder)
    document = json.loads((folder / "bundle.json").read_text(encoding="utf-8"))
    document["weights"] = None
    (folder / "bundle.json").write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(BundleWeightsMissingError) as caught:
        evaluated(request_of, model=str(folder))
    assert "robustzs export --weights" in (caught.value.hint or "")


def test_a_failed_check_publishes_no_number(bundle: Path) -> None:
    images, target = some_pictures(10)
    (trial, _) = trials_of(target)
    clean = np.ones(10, np.bool_)
    verdicts = Verdicts(
        rows=np.arange(10),
        clean=clean,
        robust=~clean,
        by=dict.fromkeys(range(10), "apgd-ce"),
        complete=True,
        n_attacked=10,
        n_unconfirmed=9,
        seconds=1.0,
    )
    judged = [Judged(images=images, trials=[(trial, verdicts)], templates=get_templates("single"))]
    checks = checks_after([], judged)
    card = card_of(judged, Circumstances(manifest=Bundle.load(bundle).manifest, checks=checks))
    assert not card.complete
    assert card.results == ()
    assert "perturbed-images-replay" in (card.incomplete_reason or "")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": ()}, "which pictures"),
        ({"threats": ()}, "which radius"),
        ({"preset": "fare"}, "a preset has its own pictures"),
        ({"max_minutes": 0.0}, "max-minutes"),
    ],
)
def test_requests_that_mean_nothing(
    request_of: EvaluateRequest, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        replace(request_of, **changes)
