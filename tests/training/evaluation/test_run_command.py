"""`robustzs evaluate` on a tiny bundle: the same card however the run went, and where it may go."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from robustzs_training.evaluation.checking import checks_after
from robustzs_training.evaluation.evaluate_command import EvaluateOutcome, run_evaluate
from robustzs_training.evaluation.insertion import put_into_bundle
from robustzs_training.evaluation.publish import Circumstances, Judged, card_of
from robustzs_training.evaluation.request import EvaluateRequest, parse_attacks, parse_threats
from robustzs_training.evaluation.run import Verdicts

from robustzs.bundle.registry import resolve_model
from robustzs.bundle.store import Bundle
from robustzs.cards.reading import measured_digest, read_card
from robustzs.cards.rows import measured_rows
from robustzs.errors import (
    BundleWeightsMissingError,
    CardError,
    EvaluationStateError,
    UsageError,
)
from robustzs.labels.templates import get_templates
from tests.training.evaluation.measured_worlds import (
    NAMES,
    answered_pictures,
    some_pictures,
    tiny_bundle,
    trials_of,
    unseen,
)

TREE = """
things:
  animal:
    mammal: [cat, dog]
    fish: [goldfish]
  thing: [teapot, tree, car]
"""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny")


@pytest.fixture(scope="module")
def table(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return answered_pictures(tmp_path_factory.mktemp("data") / "pictures", bundle, n=18)


@pytest.fixture(scope="module")
def request_of(bundle: Path, table: Path) -> EvaluateRequest:
    return EvaluateRequest(
        model=str(bundle),
        data=(str(table),),
        threats=parse_threats("4/255,8/255"),
        attacks=("apgd-ce",),
        labels=",".join(NAMES),
        n_steps=5,
        batch_size=4,
        device="cpu",
    )


def _run(request: EvaluateRequest, **changes: Any) -> tuple[EvaluateOutcome, list[str]]:
    said: list[str] = []
    return run_evaluate(replace(request, **changes), say=said.append, progress=unseen), said


@pytest.fixture(scope="module")
def measured(
    request_of: EvaluateRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Any, Path, list[str]]:
    output = tmp_path_factory.mktemp("measured") / "out"
    outcome, said = _run(request_of, output=output)
    return outcome.card, output, said


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
    outcome, _ = _run(request_of, batch_size=7)  # without an output, even
    assert outcome.card is not None
    assert outcome.path is None
    assert outcome.card.canonical() == measured[0].canonical()


def test_another_seed_is_another_card(
    measured: tuple[Any, Path, list[str]], request_of: EvaluateRequest
) -> None:
    outcome, _ = _run(request_of, seed=1, n=9, keep_outcomes=False)
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
    outcome, said = _run(request_of, output=tmp_path / "out")
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
        _run(request_of, output=output, n_steps=6)
    with pytest.raises(EvaluationStateError, match="seed"):
        _run(request_of, output=output, seed=3)


def test_time_that_runs_out_leaves_a_card_that_says_so(
    measured: tuple[Any, Path, list[str]], request_of: EvaluateRequest, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    outcome, _ = _run(request_of, output=output, max_minutes=1e-9)
    card = outcome.card
    assert card is not None
    assert not card.complete
    assert card.results == ()
    assert "--max-minutes" in (card.incomplete_reason or "")
    with pytest.raises(CardError, match="not complete"):
        put_into_bundle(card, Bundle.load(request_of.model))
    outcome, _ = _run(request_of, output=output)
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
    again, _ = _run(request)
    assert again.card is not None
    assert again.card.canonical() == measured[0].canonical()


def test_every_attack_and_the_worst_of_them(request_of: EvaluateRequest) -> None:
    outcome, _ = _run(
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
    outcome, _ = _run(
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
    again, _ = _run(
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
    outcome, _ = _run(request_of, **wanted, captions=captions, prompts="a drawing of a {}")
    assert outcome.card is not None
    assert [r.attack for r in outcome.card.results] == ["captions", "prompts", "worst"]
    for missing in ("captions", "prompts"):
        given = {"captions": captions, "prompts": "a drawing of a {}", missing: None}
        with pytest.raises(UsageError, match=f"the attack '{missing}' needs"):
            _run(request_of, **wanted, **given)


# ---- into the bundle -----------------------------------------------------------------------------


def test_a_card_goes_into_its_bundle_and_replaces_an_older_one(
    measured: tuple[Any, Path, list[str]], bundle: Path, tmp_path: Path
) -> None:
    card = measured[0]
    folder = tmp_path / "mine"
    shutil.copytree(bundle, folder)
    (folder / "notes.txt").write_text("mine", encoding="utf-8")
    before = Bundle.load(folder)
    after = put_into_bundle(card, before)
    assert read_card(folder) == card
    assert after.digest != before.digest
    assert measured_digest(after.manifest) == measured_digest(before.manifest)
    renamed = card.model_copy(update={"robustness": "another line"})
    put_into_bundle(renamed, after)
    assert read_card(folder).robustness == "another line"
    assert (folder / "notes.txt").read_text(encoding="utf-8") == "mine"


def test_at_every_step_of_the_writing_there_is_a_whole_bundle(
    measured: tuple[Any, Path, list[str]],
    bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from robustzs_training.evaluation import insertion

    folder = tmp_path / "mine"
    shutil.copytree(bundle, folder)
    put_into_bundle(measured[0], Bundle.load(folder))
    write, steps = insertion.write_text, []

    def watched(path: Path, text: str) -> None:
        write(path, text)
        steps.append(path.name)
        Bundle.load(folder)

    monkeypatch.setattr(insertion, "write_text", watched)
    put_into_bundle(measured[0], Bundle.load(folder))
    assert steps == ["bundle.json", "card.json", "README.md", "bundle.json"]


def test_the_model_card_tells_the_numbers_of_the_card(
    measured: tuple[Any, Path, list[str]], bundle: Path, tmp_path: Path
) -> None:
    card = measured[0]
    folder = tmp_path / "mine"
    shutil.copytree(bundle, folder)
    readme = folder / "README.md"
    assert "it was not measured" in readme.read_text(encoding="utf-8")
    put_into_bundle(card, Bundle.load(folder))
    text = readme.read_text(encoding="utf-8")
    assert "it was not measured" not in text
    assert f"Robustness: {card.robustness}." in text
    for row in measured_rows(card.model_dump(mode="json")):
        assert f"| {row.measure} | {row.value:.3f} ({row.low:.3f} to {row.high:.3f}) |" in text
    # Written again it is the same, with another card it has that one's numbers and no other's.
    put_into_bundle(card, Bundle.load(folder))
    assert readme.read_text(encoding="utf-8") == text
    put_into_bundle(card.model_copy(update={"robustness": "new numbers"}), Bundle.load(folder))
    assert "Robustness: new numbers." in readme.read_text(encoding="utf-8")
    assert card.robustness not in readme.read_text(encoding="utf-8")


def test_a_model_card_that_is_no_part_of_the_bundle_is_left_alone(
    measured: tuple[Any, Path, list[str]], bundle: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "mine"
    shutil.copytree(bundle, folder)
    manifest = json.loads((folder / "bundle.json").read_text(encoding="utf-8"))
    del manifest["files"]["README.md"]
    (folder / "bundle.json").write_text(json.dumps(manifest), encoding="utf-8")
    (folder / "README.md").write_text("my own\n", encoding="utf-8")
    put_into_bundle(measured[0], Bundle.load(folder))
    assert (folder / "README.md").read_text(encoding="utf-8") == "my own\n"
    (folder / "README.md").unlink()
    assert "README.md" in put_into_bundle(measured[0], Bundle.load(folder)).manifest.files


def test_the_embedded_models_card_is_not_replaced(
    measured: tuple[Any, Path, list[str]], request_of: EvaluateRequest
) -> None:
    embedded = Bundle.load(resolve_model("robustzs-lite"), verify=False)
    with pytest.raises(UsageError, match="embedded"):
        put_into_bundle(measured[0], embedded)


def test_a_card_of_another_model_stays_out(
    measured: tuple[Any, Path, list[str]], bundle: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "mine"
    shutil.copytree(bundle, folder)
    model = measured[0].model.model_copy(update={"digest": "0" * 64})
    with pytest.raises(CardError, match="the card is of the model"):
        put_into_bundle(measured[0].model_copy(update={"model": model}), Bundle.load(folder))


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
        _run(request_of, model=str(folder))
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


# ---- real processes ------------------------------------------------------------------------------


def _command(request: EvaluateRequest, output: Path) -> list[str]:
    return [
        *("evaluate", "-m", request.model, "-d", request.data[0], "--labels", str(request.labels)),
        *("--eps", "4/255,8/255", "-a", "apgd-ce", "--steps", "5", "--batch-size", "4"),
        *("--device", "cpu", "-o", str(output), "--format", "json"),
    ]


_ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


@pytest.mark.slow
def test_after_kill_9_the_same_command_gives_the_same_card(
    measured: tuple[Any, Path, list[str]], request_of: EvaluateRequest, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    command = [sys.executable, "-m", "robustzs", *_command(request_of, output)]
    journal = output / "state/journal-0.jsonl"
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=_ENVIRONMENT
    )
    try:
        deadline = time.monotonic() + 240
        while time.monotonic() < deadline and process.poll() is None:
            if journal.exists() and b"apgd-ce" in journal.read_bytes():
                break
            time.sleep(0.002)
    finally:
        process.kill()
        process.wait()
    found = journal.read_bytes()
    assert b"apgd-ce" in found
    done = subprocess.run(
        command, capture_output=True, text=True, env=_ENVIRONMENT, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    assert journal.read_bytes().startswith(found[: found.rfind(b"\n") + 1])
    assert read_card(output / "card.json").canonical() == measured[0].canonical()
    shown = json.loads(done.stdout)
    assert shown == json.loads((output / "card.json").read_text(encoding="utf-8"))
    assert shown["results"][0]["eps"] == "4/255"
    assert shown["results"][0]["depth"] is None


@pytest.mark.slow
def test_two_processes_give_the_same_card_as_one(
    measured: tuple[Any, Path, list[str]], request_of: EvaluateRequest, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    done = subprocess.run(
        [*launcher, "--nproc-per-node", "2", "-m", "robustzs", *_command(request_of, output)],
        capture_output=True,
        text=True,
        env=_ENVIRONMENT,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    journals = [(output / f"state/journal-{rank}.jsonl").read_text() for rank in range(2)]
    assert all("apgd-ce" in journal for journal in journals)
    assert read_card(output / "card.json").canonical() == measured[0].canonical()
