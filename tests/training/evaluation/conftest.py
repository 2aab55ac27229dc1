"""A tiny bundle that was measured, for the tests of the command and of what becomes of cards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from robustzs_training.evaluation.request import EvaluateRequest, parse_threats

from tests.training.evaluation.evaluate_runs import evaluated
from tests.training.evaluation.measured_worlds import NAMES, answered_pictures, tiny_bundle


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


@pytest.fixture(scope="module")
def measured(
    request_of: EvaluateRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Any, Path, list[str]]:
    output = tmp_path_factory.mktemp("measured") / "out"
    outcome, said = evaluated(request_of, output=output)
    return outcome.card, output, said
