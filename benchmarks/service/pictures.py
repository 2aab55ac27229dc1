"""Photographs as a client sends them, and the bodies of the requests that carry them."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path

from PIL import Image

REPOSITORY = Path(__file__).parents[2]
BOUNDARY = "robustzs-benchmark"
FORM = f"multipart/form-data; boundary={BOUNDARY}"


def make_pictures(folder: Path, count: int = 24) -> list[Path]:
    """JPEG files of different sizes, all cut from the shipped photographs."""
    shipped = (REPOSITORY / "examples" / "photos").iterdir()
    sources = sorted(path for path in shipped if path.suffix in (".jpg", ".png"))
    images = [Image.open(path).convert("RGB") for path in sources]
    folder.mkdir(parents=True)
    made = []
    for index in range(count):
        image = images[index % len(images)]
        edge = 0.6 + 0.4 * index / count
        stream = io.BytesIO()
        image.crop((0, 0, int(image.width * edge), int(image.height * edge))).save(
            stream, "JPEG", quality=90
        )
        made.append(folder / f"{index:02d}.jpg")
        made[-1].write_bytes(stream.getvalue())
    return made


def write_forms(folder: Path, pictures: list[Path], **fields: str) -> Path:
    """Multipart bodies: part ``image``, and fields."""
    folder.mkdir(parents=True)
    for picture in pictures:
        head = 'Content-Disposition: form-data; name="image"; filename="photo.jpg"\r\n'
        parts = [f"{head}Content-Type: image/jpeg\r\n\r\n".encode() + picture.read_bytes()]
        parts += [
            f'Content-Disposition: form-data; name="{name}"\r\n\r\n{value}'.encode()
            for name, value in fields.items()
        ]
        mark = f"--{BOUNDARY}\r\n".encode()
        body = b"".join(mark + part + b"\r\n" for part in parts) + f"--{BOUNDARY}--\r\n".encode()
        (folder / picture.name).write_bytes(body)
    return folder


def write_embedding_calls(folder: Path, pictures: list[Path], model: str) -> Path:
    """JSON bodies of OpenAI's shape, as infinity takes pictures."""
    folder.mkdir(parents=True)
    for picture in pictures:
        data = base64.b64encode(picture.read_bytes()).decode("ascii")
        call = {
            "model": model,
            "modality": "image",
            "encoding_format": "base64",
            "input": [f"data:image/jpeg;base64,{data}"],
        }
        (folder / picture.name).write_text(json.dumps(call), encoding="ascii")
    return folder
