"""Call a robustzs service: httpx and pydantic, nothing else.

```python
from robustzs_client import Client

with Client("http://127.0.0.1:3000") as client:
    answer = client.classify("image.jpg", hierarchy="wordnet")
print(answer.prediction.name, answer.prediction.probability)
```
"""

from robustzs_client._client import Client
from robustzs_client._errors import (
    APIError,
    ConnectionFailedError,
    ImageRejectedError,
    InvalidRequestError,
    RobustZSClientError,
    ServerUnavailableError,
)
from robustzs_client._models import (
    Answer,
    AnswerError,
    ErrorBody,
    HierarchyRef,
    ModelRef,
    Node,
    PathNode,
    Prediction,
    Stop,
    TreeAnswer,
)

__all__ = [
    "APIError",
    "Answer",
    "AnswerError",
    "Client",
    "ConnectionFailedError",
    "ErrorBody",
    "HierarchyRef",
    "ImageRejectedError",
    "InvalidRequestError",
    "ModelRef",
    "Node",
    "PathNode",
    "Prediction",
    "RobustZSClientError",
    "ServerUnavailableError",
    "Stop",
    "TreeAnswer",
]
