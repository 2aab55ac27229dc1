"""Write the published JSON Schemas from the models that define them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from robustzs.answer import Answer, AnswerError
from robustzs.bundle.manifest import BundleManifest
from robustzs.calibration.document import CalibrationDocument
from robustzs.cards.schema import Card
from robustzs.hierarchy.document import HierarchyDocument


def schemas() -> dict[str, dict[str, Any]]:
    """The schema of each published file, keyed by file name."""
    named: list[tuple[str, Any, str]] = [
        ("answer.schema.json", TypeAdapter(Answer | AnswerError), "robustzs answer"),
        ("bundle.schema.json", TypeAdapter(BundleManifest), "robustzs bundle.json"),
        ("calibration.schema.json", TypeAdapter(CalibrationDocument), "robustzs calibration"),
        ("card.schema.json", TypeAdapter(Card), "robustzs card.json"),
        ("hierarchy.schema.json", TypeAdapter(HierarchyDocument), "robustzs hierarchy"),
    ]
    return {
        name: {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "$id": f"urn:robustzs:schema:{name.removesuffix('.schema.json')}:1",
            **adapter.json_schema(mode="serialization"),
            "title": title,
        }
        for name, adapter, title in named
    }


if __name__ == "__main__":
    for file_name, schema in schemas().items():
        target = Path(__file__).parent / file_name
        target.write_text(json.dumps(schema, indent=2, sort_keys=True) + "\n", encoding="utf-8")
