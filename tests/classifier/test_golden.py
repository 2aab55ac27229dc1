"""One whole answer, written down; ``python -m tests.classifier.test_golden`` writes it anew."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from robustzs import Classifier
from robustzs.backends.fake import FakeBackend
from robustzs.bundle.store import Bundle
from robustzs.classifier import Embedder, Options
from tests.factories import TREE_YAML, colour_tokens, make_bundle, picture

GOLDEN = Path(__file__).parent / "golden_answer.json"


def rounded(value: Any) -> Any:
    """Floats to six digits: the last bits are the platform's."""
    if isinstance(value, float):
        return round(value, 6)
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    return [rounded(item) for item in value] if isinstance(value, list) else value


def make_answer(folder: Path) -> dict[str, Any]:
    bundle = Bundle.load(make_bundle(folder / "tiny"))
    (folder / "tree.yaml").write_text(TREE_YAML, encoding="utf-8")
    classifier = Classifier(
        Embedder(bundle, FakeBackend(bundle.manifest, colours=colour_tokens())),
        Options(temperature=3.0, top_k=3),
        hierarchy=[folder / "tree.yaml", "flat"],
    )
    answer = json.loads(classifier.classify(picture("dog"), name="dog.png").model_dump_json())
    answer["model"]["digest"] = "depends on the onnx package that wrote the bundle"
    return rounded(answer)


def render(answer: dict[str, Any]) -> str:
    return json.dumps(answer, indent=2) + "\n"


def test_the_answer_is_the_one_written_down(tmp_path: Path) -> None:
    assert render(make_answer(tmp_path)) == GOLDEN.read_text(encoding="utf-8")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        GOLDEN.write_text(render(make_answer(Path(folder))), encoding="utf-8")
