"""Captions by a vision-language model behind an OpenAI-compatible endpoint."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from PIL import Image

from robustzs.chat import ChatClient, ChatConfig
from robustzs.errors import ChatRefusedError, ChatUnavailableError, ImageError
from robustzs.images.decode import decode_image
from robustzs.images.sources import ImageSource
from robustzs_training.captions.journal import Outcome
from robustzs_training.captions.run import one_line

PROMPT = "Describe the image in detail within 50 words."
"""QT-AFT's, exactly."""

JPEG_QUALITY = 90


@dataclass(frozen=True, kw_only=True)
class EndpointCaptioner:
    """Asks about so many images at once as ``config.connections`` says.

    Attributes:
        folder: What keys are below.
        config: Whom to ask.
        prompt: What to ask.
        max_side: Larger images are sent smaller: pixels of the longer side.
    """

    folder: Path
    config: ChatConfig
    prompt: str = PROMPT
    max_side: int = 896

    @property
    def settings(self) -> dict[str, str]:
        """As in the table; the address is nobody's business."""
        return {"source": "openai", "prompt": self.prompt, "model": self.config.model}

    def caption(self, keys: Iterable[str]) -> Iterator[Sequence[Outcome]]:
        """Outcomes as they come.

        Raises:
            ServerError: The key, the address or the model is wrong.
        """
        left = iter(keys)
        n_at_once = self.config.connections
        client = ChatClient(self.config)
        pool = ThreadPoolExecutor(n_at_once, thread_name_prefix="caption")
        waiting: set[Future[Outcome]] = set()
        try:
            while True:
                for key in islice(left, n_at_once - len(waiting)):
                    waiting.add(pool.submit(self._one, client, key))
                if not waiting:
                    return
                done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                failures = [error for future in done if (error := future.exception())]
                yield [future.result() for future in done if not future.exception()]
                if failures:
                    raise failures[0]
        finally:
            client.close()
            pool.shutdown(wait=True, cancel_futures=True)

    def _one(self, client: ChatClient, key: str) -> Outcome:
        try:
            image = read_image(self.folder, key)
        except ImageError as error:
            return Outcome(key=key, error=error.code, message=str(error))
        content = [
            {"type": "text", "text": self.prompt},
            {"type": "image_url", "image_url": {"url": data_url(image, self.max_side)}},
        ]
        try:
            reply = client.ask([{"role": "user", "content": content}])
        except ChatUnavailableError as error:
            return Outcome(key=key, error=error.code, message=str(error), passing=True)
        except ChatRefusedError as error:
            return Outcome(key=key, error=error.code, message=str(error))
        caption = one_line(reply.text, is_cut=reply.is_cut)
        return Outcome(
            key=key,
            caption=caption or None,
            error="" if caption else "empty",
            message="" if caption else "the model gave an empty answer",
            prompt_tokens=reply.prompt_tokens,
            completion_tokens=reply.completion_tokens,
        )


def read_image(folder: Path, key: str) -> Image.Image:
    """The picture of a key: RGB, upright, within the limits for images.

    Raises:
        ImageError: It cannot be read.
    """
    return decode_image(ImageSource(str(folder / key)).read())


def data_url(image: Image.Image, max_side: int) -> str:
    """The image as a JPEG in a data URL, no side longer than ``max_side``."""
    if max(image.size) > max_side:
        image = image.copy()
        image.thumbnail((max_side, max_side), Image.Resampling.LANCZOS, reducing_gap=3.0)
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=JPEG_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode("ascii")
