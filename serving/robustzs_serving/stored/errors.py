"""What may go wrong with what is kept.

```
StoreError
├── StoredNotFoundError     404  nothing under that id, for this key
├── PreconditionError       412  it is not, or no longer, what If-Match or If-None-Match says
├── StoreFullError          413  the key has no room left
├── StoreDamagedError       409  the file is not what was written; put it again, or delete it
└── StoreUnavailableError   503  the disk refuses
```
"""

from __future__ import annotations

from typing import ClassVar

from robustzs.errors import RobustZSError


class StoreError(RobustZSError):
    """Base of all errors above."""

    code = "stored"
    status: ClassVar[int] = 500


class StoredNotFoundError(StoreError):
    """Nothing is kept under that id, for this key."""

    code = "stored-not-found"
    status = 404


class PreconditionError(StoreError):
    """What is kept is not what the request's condition says."""

    code = "precondition-failed"
    status = 412


class StoreFullError(StoreError):
    """The key has no room left."""

    code = "store-full"
    status = 413


class StoreDamagedError(StoreError):
    """The file is not what was written."""

    code = "stored-damaged"
    status = 409


class StoreUnavailableError(StoreError):
    """The disk refuses to read or write."""

    code = "store-unavailable"
    status = 503
