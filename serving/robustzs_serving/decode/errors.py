"""What may go wrong with an image in a decode process, beside what is wrong with the image.

```
ImageError
├── DecodeTimeoutError      422  decoding took longer than an image may take
└── DecodeCrashedError      422  the process died of this image, twice
DecoderUnavailableError     503  no decode process can be started, or the pool is closed
```
"""

from __future__ import annotations

from typing import ClassVar

from robustzs.errors import ImageError, RobustZSError


class DecodeTimeoutError(ImageError):
    """Decoding took longer than an image may take."""

    code = "decode-timeout"
    status: ClassVar[int] = 422


class DecodeCrashedError(ImageError):
    """The decode process died of this image, and so did the next one."""

    code = "decode-crashed"
    status: ClassVar[int] = 422


class DecoderUnavailableError(RobustZSError):
    """No decode process can be started, or the pool is closed."""

    code = "decoder-unavailable"
    status: ClassVar[int] = 503
