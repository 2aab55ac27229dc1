"""Call a robustzs service: httpx, pydantic and tenacity, nothing else.

```python
from robustzs_client import Client

with Client("http://127.0.0.1:3000") as client:
    answer = client.classify("image.jpg", hierarchy="wordnet")
print(answer.prediction.name, answer.prediction.probability)
```

``AsyncClient`` has the same methods, to be awaited. A module is read when one of its names is first
asked for, so that nobody pays for what they do not use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from robustzs_client._async_client import AsyncClient
    from robustzs_client._batches import Progress
    from robustzs_client._calls import ClassifyOptions, EmbeddingRow, Labels, Row, Tree
    from robustzs_client._client import Client
    from robustzs_client._errors import (
        APIError,
        AuthenticationError,
        ConflictError,
        ConnectionFailedError,
        DeadlineError,
        HierarchyRejectedError,
        ImageRejectedError,
        InvalidRequestError,
        LabelsRejectedError,
        NotFoundError,
        OverloadedError,
        PermissionDeniedError,
        RobustZSClientError,
        ServerUnavailableError,
        TimedOutError,
        TooLargeError,
        UnexpectedResponseError,
    )
    from robustzs_client._images import ImageInput, NamedImage
    from robustzs_client._models import (
        Answer,
        AnswerError,
        Embedding,
        ErrorBody,
        HierarchyRef,
        ModelDetails,
        ModelRef,
        Node,
        PathNode,
        Prediction,
        Readiness,
        Stop,
        StoredDocument,
        StoredInfo,
        TreeAnswer,
    )
    from robustzs_client._settings import Batching, Retries, Timeouts

__all__ = [
    "APIError",
    "Answer",
    "AnswerError",
    "AsyncClient",
    "AuthenticationError",
    "Batching",
    "ClassifyOptions",
    "Client",
    "ConflictError",
    "ConnectionFailedError",
    "DeadlineError",
    "Embedding",
    "EmbeddingRow",
    "ErrorBody",
    "HierarchyRef",
    "HierarchyRejectedError",
    "ImageInput",
    "ImageRejectedError",
    "InvalidRequestError",
    "Labels",
    "LabelsRejectedError",
    "ModelDetails",
    "ModelRef",
    "NamedImage",
    "Node",
    "NotFoundError",
    "OverloadedError",
    "PathNode",
    "PermissionDeniedError",
    "Prediction",
    "Progress",
    "Readiness",
    "Retries",
    "RobustZSClientError",
    "Row",
    "ServerUnavailableError",
    "Stop",
    "StoredDocument",
    "StoredInfo",
    "TimedOutError",
    "Timeouts",
    "TooLargeError",
    "Tree",
    "TreeAnswer",
    "UnexpectedResponseError",
]

_NAMES = {
    "_async_client": "AsyncClient",
    "_batches": "Progress",
    "_calls": "ClassifyOptions EmbeddingRow Labels Row Tree",
    "_client": "Client",
    "_errors": (
        "APIError AuthenticationError ConflictError ConnectionFailedError DeadlineError "
        "HierarchyRejectedError ImageRejectedError InvalidRequestError "
        "LabelsRejectedError NotFoundError OverloadedError PermissionDeniedError "
        "RobustZSClientError ServerUnavailableError TimedOutError TooLargeError "
        "UnexpectedResponseError"
    ),
    "_images": "ImageInput NamedImage",
    "_models": (
        "Answer AnswerError Embedding ErrorBody HierarchyRef ModelDetails ModelRef Node "
        "PathNode Prediction Readiness Stop StoredDocument StoredInfo TreeAnswer"
    ),
    "_settings": "Batching Retries Timeouts",
}
_MODULE_OF = {name: module for module, names in _NAMES.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    """A public name, with the module that it is in."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
