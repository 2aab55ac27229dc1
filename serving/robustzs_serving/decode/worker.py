"""A decode process: image files come in, pixels go out, nothing else happens.

Started as ``python -I -c ... worker.main()`` with its connection as standard input. It holds no
model, no key and no other request's data; it may open no more files or processes than it has and
use no more memory than its limits say.
"""

from __future__ import annotations

import json
import resource
import signal
import socket
import sys

from robustzs.errors import ImageError, ImageTooLargeError
from robustzs.images.config import PreprocessConfig
from robustzs.images.decode import decode_image
from robustzs.images.limits import ImageLimits
from robustzs.images.preprocess import fit
from robustzs_serving.decode import wire

_FOREVER = float("inf")


def main() -> None:
    """Serve until the other side closes the connection."""
    settings = json.loads(sys.argv[-1])
    config = PreprocessConfig.model_validate(settings["preprocess"])
    limits = ImageLimits(**settings["limits"])
    # Ctrl-C goes to the whole group, and BentoML's supervisor asks the children of a worker to stop
    # together with it; the service finishes what it accepted, so its decoders do.
    for asked in (signal.SIGINT, signal.SIGTERM):
        signal.signal(asked, signal.SIG_IGN)
    _load_codecs(config, limits)
    _confine(settings["max_bytes"])
    connection = socket.socket(fileno=0)
    try:
        wire.send(connection, wire.READY, _FOREVER)
        while True:
            (length,) = wire.LENGTH.unpack(wire.read(connection, wire.LENGTH.size, _FOREVER))
            data = bytes(wire.read(connection, length, _FOREVER))
            wire.send(connection, _answer(data, config, limits), _FOREVER)
    except wire.Gone:
        return


def _answer(data: bytes, config: PreprocessConfig, limits: ImageLimits) -> bytes:
    try:
        pixels = fit(decode_image(data, limits), config)
    except ImageError as error:
        return wire.pack_refusal(error)
    except MemoryError:
        return wire.pack_refusal(
            ImageTooLargeError("there is not enough memory for this image", hint="scale it down")
        )
    return wire.OK + pixels.transpose(2, 0, 1).tobytes()


def _load_codecs(config: PreprocessConfig, limits: ImageLimits) -> None:
    """Decode one small file of each format, so that no request pays for imports."""
    import io

    from PIL import Image

    for name in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"):
        stream = io.BytesIO()
        Image.new("RGB", (8, 8)).save(stream, name)
        _answer(stream.getvalue(), config, limits)


def _confine(max_bytes: int) -> None:
    for kind, value in (
        (resource.RLIMIT_AS, max_bytes),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
    ):
        _, hard = resource.getrlimit(kind)
        if hard != resource.RLIM_INFINITY:
            value = min(value, hard)
        resource.setrlimit(kind, (value, value))
