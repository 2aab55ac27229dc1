"""Call a robustzs service: httpx, pydantic and tenacity, nothing else.

```python
from robustzs_client import Client

with Client("http://127.0.0.1:3000") as client:
    answer = client.classify("image.jpg", hierarchy="wordnet")
print(answer.prediction.name, answer.prediction.probability)
```

``AsyncClient`` has the same methods, to be awaited.
"""

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
