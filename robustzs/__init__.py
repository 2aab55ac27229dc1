"""Adversarially robust, hierarchical zero-shot image classification.

```python
from robustzs import Classifier

classifier = Classifier.load()
answer = classifier.classify("cat.jpg")
print(answer.prediction.name, answer.prediction.probability)
```

The names below are the stable, documented way in. They are imported when they are first used, so
that ``import robustzs`` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from robustzs._version import __version__

if TYPE_CHECKING:
    from robustzs.answer import Answer, AnswerError
    from robustzs.bundle.store import Bundle
    from robustzs.classifier import Classifier
    from robustzs.errors import RobustZSError
    from robustzs.hierarchy.forest import Forest
    from robustzs.hierarchy.tree import Hierarchy
    from robustzs.labels.label_set import LabelSet

__all__ = [
    "Answer",
    "AnswerError",
    "Bundle",
    "Classifier",
    "Forest",
    "Hierarchy",
    "LabelSet",
    "RobustZSError",
    "__version__",
]

_MODULES = {
    "Answer": "robustzs.answer",
    "AnswerError": "robustzs.answer",
    "Bundle": "robustzs.bundle.store",
    "Classifier": "robustzs.classifier",
    "Forest": "robustzs.hierarchy.forest",
    "Hierarchy": "robustzs.hierarchy.tree",
    "LabelSet": "robustzs.labels.label_set",
    "RobustZSError": "robustzs.errors",
}


def __getattr__(name: str) -> object:
    """Import a public name at its first use."""
    if name not in _MODULES:
        raise AttributeError(f"module 'robustzs' has no attribute {name!r}")
    value: object = getattr(importlib.import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
