"""Why an image did not get its turn.

```
QueueFullError     429  too much waits already; nothing was started
DeadlineError      504  the time that the request had is over
ClosingError       503  the service is shutting down
```
"""

from __future__ import annotations

from typing import ClassVar

from robustzs.errors import RobustZSError


class QueueFullError(RobustZSError):
    """Too much waits already; nothing was started, so asking again later is safe."""

    code = "overloaded"
    status: ClassVar[int] = 429


class DeadlineError(RobustZSError):
    """The time that the request had is over."""

    code = "deadline"
    status: ClassVar[int] = 504


class ClosingError(RobustZSError):
    """The service is shutting down and takes nothing new."""

    code = "shutting-down"
    status: ClassVar[int] = 503
