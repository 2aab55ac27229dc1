"""What is kept of a row: one JSON, which the report reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from robustzs.cards.schema import Card
from robustzs.errors import CardError
from robustzs_training.evaluation.state import write_text

RESULTS = "results"
"""The folder, below the study's output."""
VERSION = 1


class RowResult(BaseModel):
    """A row of the study, trained by one seed and measured.

    Attributes:
        schema_version: Of this record.
        row: Its name.
        title: For tables.
        seed: Of the training.
        asked: What decides the numbers: changes of the recipe, protocol.
        recipe: As it was resolved; ``None`` for the start model.
        recipe_digest: Of what decides the weights.
        bundle: Digest of the model that was measured.
        training: Steps, terms at the end, digest of the data, trees; ``None`` for the start model.
        cards: Of each set.
        clean: Set -> right before any attack, and all; also where a check refuses the model.
        seconds: ``training``, ``export``, ``evaluation`` and what else took time.
        versions: Of everything that has a part in the numbers.
        machine: For the seconds.
        finished: When.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: int = VERSION
    row: str
    title: str
    seed: int
    asked: dict[str, Any]
    recipe: dict[str, Any] | None
    recipe_digest: str | None
    bundle: str
    training: dict[str, Any] | None
    cards: dict[str, Card]
    clean: dict[str, tuple[int, int]]
    seconds: dict[str, float]
    versions: dict[str, str]
    machine: str
    finished: str

    @property
    def full(self) -> bool:
        """Whether it is of the full ensemble."""
        return bool(self.asked.get("protocol", {}).get("full", False))

    @property
    def label(self) -> str:
        """For tables: the title, and the seed unless it is 0."""
        return self.title if self.seed == 0 else f"{self.title}, seed {self.seed}"

    def write(self, output: Path) -> Path:
        """Write it below the study's output; at once."""
        path = result_path(output, self.row, self.seed, full=self.full)
        document = self.model_dump(mode="json")
        write_text(path, json.dumps(document, indent=1, ensure_ascii=False) + "\n")
        return path


def result_path(output: Path, row: str, seed: int, *, full: bool = False) -> Path:
    """Where a row's JSON lies: of the sweep, or of the full ensemble."""
    return output / RESULTS / f"{row}-seed{seed}{'-full' if full else ''}.json"


def read_result(path: Path) -> RowResult:
    """Read a row.

    Raises:
        CardError: The file is not there, or no such record.
    """
    try:
        return RowResult.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ValidationError) as error:
        reason = str(error).splitlines()[0]
        raise CardError(
            f"{path} is no result of the study: {reason}",
            hint="`python -m robustzs_training.study run ROW` makes it again",
        ) from error


def read_results(output: Path, order: tuple[str, ...]) -> list[RowResult]:
    """All rows that are finished, in the given order of names, then by seed.

    Raises:
        CardError: A file is damaged.
    """
    found = [read_result(path) for path in sorted((output / RESULTS).glob("*.json"))]
    places = {name: place for place, name in enumerate(order)}
    return sorted(found, key=lambda each: (places.get(each.row, len(places)), each.seed))
