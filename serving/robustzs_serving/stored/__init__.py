"""Label sets and hierarchies that a client keeps here under an id, on disk, each key its own.

```
store = Store(folder, bytes_per_key=64_000_000)
stored = store.put("label-sets", "pets", "anonymous", {"labels": ["cat", "dog"]})
store.get("label-sets", "pets", "anonymous").document
```
"""

from robustzs_serving.stored.errors import (
    PreconditionError,
    StoreDamagedError,
    StoredNotFoundError,
    StoreError,
    StoreFullError,
    StoreUnavailableError,
)
from robustzs_serving.stored.preconditions import Preconditions
from robustzs_serving.stored.store import ID_PATTERN, KINDS, Kind, Page, Store, Stored

__all__ = [
    "ID_PATTERN",
    "KINDS",
    "Kind",
    "Page",
    "PreconditionError",
    "Preconditions",
    "Store",
    "StoreDamagedError",
    "StoreError",
    "StoreFullError",
    "StoreUnavailableError",
    "Stored",
    "StoredNotFoundError",
]
