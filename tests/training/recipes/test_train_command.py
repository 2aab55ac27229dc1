"""`robustzs train` through its command line, with a tiny model and a dozen pictures."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from robustzs.bundle.store import Bundle
from robustzs.cli.main import main
from tests.training.recipes.small_worlds import NAMES, tiny_overrides, write_pictures


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str


@pytest.fixture
def run(capsys):
    def call(*arguments):
        with pytest.raises(SystemExit) as stopped:
            main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Result(int(stopped.value.code or 0), captured.out, captured.err)

    return call


@pytest.fixture
def pictures(tmp_path):
    return write_pictures(tmp_path / "pictures")


def arguments(folder, pictures, *more, recipe="tecoa", steps=2, export=False):
    """A run of two steps on the tiny model."""
    changes = [
        *tiny_overrides(folder),
        "data.n_workers=0",
        "run.trackers=[]",
        f"evaluate.path={pictures}",
        "evaluate.n_steps=2",
        "evaluate.n_images=null",
        f"export.enabled={str(export).lower()}",
    ]
    sets = [part for change in changes for part in ("--set", change)]
    return [
        "train", "--recipe", recipe, "--data", pictures, "--output", folder / "out",
        "--steps", steps, "--device", "cpu", *sets, *more,
    ]  # fmt: skip


def files_in(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


# ---- a whole run ---------------------------------------------------------------------------------


def test_a_run_and_the_same_command_again(run, tmp_path, pictures):
    command = arguments(tmp_path, pictures)
    done = run(*command)
    assert done.code == 0, done.err
    assert "step 2/2" in done.err
    assert "before" in done.out
    summary = json.loads((tmp_path / "out" / "summary.json").read_text("utf-8"))
    assert summary["recipe"] == "tecoa"
    assert summary["steps"] == 2
    assert summary["images_seen"] == 8
    assert summary["data"]["n"] == 12
    assert summary["data"]["n_classes"] == len(NAMES)
    for part in ("before", "after"):
        assert summary[part]["n"] == 12
        assert 0.0 <= summary[part]["robust_accuracy"] <= summary[part]["clean_accuracy"] <= 1.0
    low, high = summary["gain"]["interval"]
    assert low <= summary["gain"]["robust_accuracy"] <= high
    assert summary["protocol"]["eps"] == "1/255"
    assert {"data", "training", "evaluation"} <= set(summary["seconds"])
    assert summary["bundle"] is None

    before = files_in(tmp_path / "out")
    again = run(*command, "--json")
    assert again.code == 0
    assert "finished already" in again.err
    assert json.loads(again.out) == summary
    assert files_in(tmp_path / "out") == before

    over = run(*command, "--no-resume")
    assert over.code == 0
    assert "step 2/2" in over.err
    assert json.loads((tmp_path / "out" / "summary.json").read_text("utf-8"))["steps"] == 2


def test_another_recipe_in_the_same_folder_is_refused(run, tmp_path, pictures):
    assert run(*arguments(tmp_path, pictures, "--no-evaluate")).code == 0
    other = run(*arguments(tmp_path, pictures, "--no-evaluate", "--set", "optimizer.lr=0.5"))
    assert other.code == 1
    assert "optimizer.lr" in other.err
    longer = run(*arguments(tmp_path, pictures, "--no-evaluate", steps=3))
    assert longer.code == 1
    assert "schedule.steps" in longer.err


def test_a_run_that_only_lacks_its_numbers_gets_them(run, tmp_path, pictures):
    assert run(*arguments(tmp_path, pictures, "--no-evaluate")).code == 0
    done = run(*arguments(tmp_path, pictures))
    assert done.code == 0
    assert "step 2/2" not in done.err
    assert json.loads((tmp_path / "out" / "summary.json").read_text("utf-8"))["after"]["n"] == 12


def test_other_questions_are_answered_by_the_same_weights(run, tmp_path, pictures):
    assert run(*arguments(tmp_path, pictures)).code == 0
    harder = ["--set", "evaluate.eps=4/255"]
    done = run(*arguments(tmp_path, pictures, *harder))
    assert done.code == 0
    assert "step 2/2" not in done.err
    assert "finished already" not in done.err
    summary = json.loads((tmp_path / "out" / "summary.json").read_text("utf-8"))
    assert summary["protocol"]["eps"] == "4/255"
    kept = run(*arguments(tmp_path, pictures, *harder, "--no-evaluate", "--json"))
    assert "finished already" in kept.err
    assert json.loads(kept.out) == summary


def test_other_data_in_the_same_folder_is_refused(run, tmp_path, pictures):
    assert run(*arguments(tmp_path, pictures, "--no-evaluate")).code == 0
    other = shutil.copytree(pictures, tmp_path / "other")
    next(other.rglob("*.png")).unlink()
    done = run(*arguments(tmp_path, other, "--no-evaluate"))
    assert done.code == 1
    assert "data digest" in done.err


@pytest.mark.parametrize("recipe", ["hierarchical-vit-b-32", "qt-aft-hierarchical-vit-b-32"])
def test_trees_and_captions(run, tmp_path, pictures, recipe):
    more = ["--set", "data.siblings=2", "--set", "data.caption_mode=names-and-properties"]
    done = run(*arguments(tmp_path, pictures, *more, recipe=recipe))
    assert done.code == 0, done.err
    summary = json.loads((tmp_path / "out" / "summary.json").read_text("utf-8"))
    first, second = summary["protocol"]["logit_factors"]
    assert first != second  # cosines before, distances in the ball after


@pytest.mark.slow
def test_the_folder_is_a_model_that_classifies_and_trains_on(run, tmp_path, pictures):
    done = run(*arguments(tmp_path, pictures, recipe="hierarchical-vit-b-32", export=True))
    assert done.code == 0, done.err
    out = tmp_path / "out"
    assert "robustzs classify photo.jpg --model" in done.out
    bundle = Bundle.load(out)
    summary = json.loads((out / "summary.json").read_text("utf-8"))
    assert summary["bundle"] == {"name": "hierarchical-vit-b-32", "digest": bundle.digest}
    manifest = bundle.manifest
    assert manifest.geometry.kind == "poincare"
    assert manifest.theta is None
    assert manifest.weights is not None
    assert manifest.training["steps"] == 2
    assert manifest.training["evaluation"]["after"]["n"] == 12
    card = (out / "README.md").read_text("utf-8")
    assert "## How it was trained" in card
    assert "accuracy under attack at 1/255" in card
    assert "Not calibrated" in card
    assert "was not measured" not in card
    assert "bundle" not in {path.name for path in (out / "run").iterdir()}

    photo = next(pictures.rglob("*.png"))
    answer = run("classify", photo, "--model", out, "--labels", "cat,dog,teapot")
    assert answer.code == 0, answer.err
    assert "teapot" in answer.out or "cat" in answer.out or "dog" in answer.out

    next_folder = tmp_path / "next"
    next_folder.mkdir()
    more = ["--model", out, "--no-evaluate", "--set", f"model.source={out}"]
    more += ["--set", "model.pretrained=null"]
    command = arguments(next_folder, pictures, *more, recipe="fare", export=True)
    trained = run(*command)
    assert trained.code == 0, trained.err
    after = Bundle.load(next_folder / "out").manifest
    assert after.training["trained_from"]["name"] == "hierarchical-vit-b-32"
    assert after.geometry == manifest.geometry


@pytest.mark.slow
def test_ctrl_c_leaves_a_checkpoint_and_the_same_command_goes_on(tmp_path, pictures):
    command = [sys.executable, "-m", "robustzs"]
    command += map(str, arguments(tmp_path, pictures, "--no-evaluate", steps=400))
    command += ["--set", "run.log_every=1"]
    log = tmp_path / "log.txt"
    with log.open("wb") as stream:
        process = subprocess.Popen(command, stderr=stream, stdout=stream, cwd=Path.cwd())
        end = time.monotonic() + 120
        while b"step 3/400" not in log.read_bytes():
            assert time.monotonic() < end, log.read_text("utf-8")
            assert process.poll() is None, log.read_text("utf-8")
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 130
    text = log.read_text("utf-8")
    assert "The same command goes on from there" in text
    assert "Traceback" not in text
    assert not (tmp_path / "out" / "summary.json").exists()
    stopped = int(text.split("stopped after step ")[-1].split(";")[0])
    assert 3 <= stopped < 400
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    assert f"going on from step {stopped} of 400" in done.stderr
    assert json.loads((tmp_path / "out" / "summary.json").read_text("utf-8"))["steps"] == 400


@pytest.mark.slow
def test_two_processes_under_torchrun(tmp_path, pictures):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", "2", "-m", "robustzs"]
    more = ["--set", "data.caption_mode=names"]
    command += map(str, arguments(tmp_path, pictures, *more, recipe="qt-aft-vit-b-16"))
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=300, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("step 2/2") == 1
    assert done.stdout.count("attacked") == 1
    assert json.loads((tmp_path / "out" / "summary.json").read_text("utf-8"))["steps"] == 2


# ---- a plan --------------------------------------------------------------------------------------


def test_a_plan_tells_everything_and_writes_nothing(run, tmp_path, pictures):
    (pictures / NAMES[0] / "0.png").write_bytes(b"\x89PNG\r\n\x1a\n torn")
    done = run(*arguments(tmp_path, pictures, "--dry-run", "--set", "data.max_bad_fraction=0.5"))
    assert done.code == 0, done.err
    for expected in ("12 images, 4 classes; 1 broken of 12", "2 steps of 4 images", "memory",
                     "disk", "of training", "of measuring: 12 images before and after, APGD-CE "
                     "with 2 iterations", "in all"):  # fmt: skip
        assert expected in done.out
    assert f"{NAMES[0]}/0.png: " in done.out
    assert not (tmp_path / "out").exists()


def test_a_plan_as_json(run, tmp_path, pictures):
    done = run(*arguments(tmp_path, pictures, "--dry-run", "--json", steps=500))
    assert done.code == 0, done.err
    plan = json.loads(done.out)
    assert plan["steps"] == 500
    assert plan["steps_per_epoch"] == 3
    assert plan["problems"] == []
    assert plan["step_seconds"] > 0
    each = plan["step_seconds"] + plan["load_seconds"]
    assert plan["training_seconds"] == pytest.approx(500 * each)
    assert plan["evaluation_seconds"] > 0
    assert plan["export_seconds"] is None
    parts = plan["data"]["seconds_to_open"], plan["training_seconds"], plan["evaluation_seconds"]
    assert plan["total_seconds"] == pytest.approx(sum(parts), abs=1e-3)
    assert plan["data"]["n_captioned"] == 0


def test_a_plan_has_what_the_run_has(run, tmp_path, pictures):
    done = run(*arguments(tmp_path, pictures, "--dry-run", recipe="hierarchical-forest-vit-b-32",
                          export=True), "--set", "data.hierarchy=[wordnet, flat]")  # fmt: skip
    assert done.code == 0, done.err
    assert "2: wordnet, flat" in done.out
    assert "of export" in done.out
    bare = run(*arguments(tmp_path, pictures, "--dry-run", "--no-evaluate", "--json"))
    plan = json.loads(bare.out)
    assert plan["evaluation_seconds"] is plan["export_seconds"] is None
    assert plan["trees"] == []
    assert plan["total_seconds"] >= plan["training_seconds"]


def test_a_plan_that_cannot_be(run, tmp_path, pictures, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    done = run(*arguments(tmp_path, pictures, "--dry-run"))
    assert done.code == 1
    assert "of disk" in done.err
    assert "of training" not in done.out


# ---- what is asked for ---------------------------------------------------------------------------


def test_recipes_are_listed_and_shown(run):
    listed = run("train", "--list")
    assert listed.code == 0
    assert "qt-aft-vit-b-16 " in listed.out
    shown = run("train", "--show", "fare")
    assert shown.code == 0
    assert "momentum: 0.9" in shown.out
    assert run("train", "--show", "fair").code == 1


@pytest.mark.parametrize(
    ("words", "code", "expected"),
    [
        (["--output", "out"], 2, "which recipe"),
        (["--recipe", "fare"], 2, "where to"),
        (["--recipe", "fair", "--output", "out"], 1, "did you mean fare"),
        (["--recipe", "fare", "-o", "out", "--set", "x=1"], 1, "x is no key"),
        (["--recipe", "fare", "-o", "out", "--data", "nowhere"], 1, "there is no data 'nowhere'"),
        (["--recipe", "fare", "-o", "out"], 1, "needs a path"),
        (["--recipe", "fare", "-o", "out", "--steps", "0"], 2, "steps"),
    ],
)
def test_what_is_missing_or_wrong_is_named(run, tmp_path, monkeypatch, words, code, expected):
    monkeypatch.chdir(tmp_path)
    done = run("train", *words)
    assert done.code == code
    assert expected in done.err
    assert not (tmp_path / "out").exists()


def test_no_foreign_folder_is_written_into(run, tmp_path, pictures):
    command = arguments(tmp_path, pictures)
    (tmp_path / "out").mkdir()
    assert "no run" not in run(*command, "--dry-run").err  # an empty one is fine
    (tmp_path / "out" / "thesis.txt").write_text("x")
    done = run(*command)
    assert done.code == 2
    assert "holds thesis.txt and no run" in done.err
    shutil.rmtree(tmp_path / "out")
    (tmp_path / "out").write_text("a file")
    done = run(*command)
    assert done.code == 2
    assert "is a file" in done.err


def test_a_folder_that_cannot_be_made_is_told_before_captions_are_encoded(
    run, tmp_path, pictures, monkeypatch
):
    cache = tmp_path / "cache"
    monkeypatch.setenv("ROBUSTZS_CACHE", str(cache))
    (tmp_path / "file").write_text("in the way")
    changes = ("--set", "data.caption_mode=names-and-properties", "--output", tmp_path / "file/out")
    done = run(*arguments(tmp_path, pictures, *changes, recipe="qt-aft-vit-b-16"))
    assert done.code == 1
    assert "cannot be written" in done.err
    assert not cache.exists()


def test_objectives_say_what_the_data_lacks(run, tmp_path, pictures):
    done = run(*arguments(tmp_path, pictures, recipe="qt-aft-vit-b-16"))
    assert done.code == 1
    assert "needs captions" in done.err
    assert "data.caption_mode=names-and-properties" in done.err
    flat = tmp_path / "flat"
    flat.mkdir()
    for index, path in enumerate(sorted(pictures.rglob("*.png"))):
        shutil.copy(path, flat / f"{index}.png")
    done = run(*arguments(tmp_path, flat, "--no-evaluate"))
    assert done.code == 2
    assert "tecoa needs classes" in done.err
    done = run(*arguments(tmp_path, flat, "--set", f"evaluate.path={flat}", recipe="fare"))
    assert done.code == 1
    assert "cannot be measured" in done.err
    assert "step 1/2" not in done.err  # told before the run, not after it
    assert run(*arguments(tmp_path, flat, "--no-evaluate", recipe="fare")).code == 0


def test_a_folder_of_wnids_is_known_by_its_names(run, tmp_path, pictures):
    for name, wnid in zip(NAMES, ("n02123045", "n02099601", "n01443537", "n04398044"), strict=True):
        (pictures / name).rename(pictures / wnid)
    done = run(*arguments(tmp_path, pictures, "--dry-run", "--json"))
    assert done.code == 0, done.err
    assert json.loads(done.out)["data"]["n_classes"] == 4


def test_the_batch_must_fit_its_parts(run, tmp_path, pictures):
    done = run(*arguments(tmp_path, pictures, "--set", "run.accumulation=3"))
    assert done.code == 2
    assert "multiple of 3" in done.err


def test_nothing_held_out_is_said(run, tmp_path, pictures):
    done = run(*arguments(tmp_path, pictures, "--set", "evaluate.path=null"))
    assert done.code == 0
    assert "nothing will be measured" in done.err
    assert json.loads((tmp_path / "out" / "summary.json").read_text("utf-8"))["after"] is None
