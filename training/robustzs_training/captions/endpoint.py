"""Captions by a vision-language model behind an OpenAI-compatible endpoint."""

from __future__ import annotations

import base64
import io
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from queue import SimpleQueue
from threading import Thread

from PIL import Image

from robustzs.chat import ChatClient, ChatConfig
from robustzs.errors import (
    CaptionError,
    ChatRefusedError,
    ChatUnavailableError,
    ImageError,
    RobustZSError,
)
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

    def caption(self, keys: Iterable[str]) -> Generator[Sequence[Outcome], None, None]:
        """Outcomes as they come.

        Raises:
            ServerError: The key, the address or the model is wrong.
        """
        left = iter(keys)
        n_at_once = self.config.connections
        todo: SimpleQueue[str | None] = SimpleQueue()
        done: SimpleQueue[Outcome | RobustZSError] = SimpleQueue()
        n_under_way = 0
        with ChatClient(self.config) as client:
            # Daemons, unlike those of a pool, do not keep an interrupted process until the server
            # has answered.
            for _ in range(n_at_once):
                Thread(target=self._work, args=(client, todo, done), daemon=True).start()
            try:
                while True:
                    for key in islice(left, n_at_once - n_under_way):
                        todo.put(key)
                        n_under_way += 1
                    if not n_under_way:
                        return
                    results = [done.get()]
                    while not done.empty():
                        results.append(done.get())
                    n_under_way -= len(results)
                    yield [result for result in results if isinstance(result, Outcome)]
                    for result in results:
                        if isinstance(result, RobustZSError):
                            raise result
            finally:
                for _ in range(n_at_once):
                    todo.put(None)

    def _work(
        self,
        client: ChatClient,
        todo: SimpleQueue[str | None],
        done: SimpleQueue[Outcome | RobustZSError],
    ) -> None:
        while (key := todo.get()) is not None:
            # Told even if the thread dies of a defect, so that nobody waits for it.
            result: Outcome | RobustZSError = CaptionError(f"the thread for {key!r} broke down")
            try:
                result = self._one(client, key)
            except RobustZSError as error:
                result = error
            finally:
                done.put(result)

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
