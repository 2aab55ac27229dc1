"""Files that mean harm end in a typed error, soon, in bounded memory, and say nothing of Pillow."""

import json
import os
import random
import resource
import struct
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest
from PIL import Image

from robustzs.errors import (
    ImageDecodeError,
    ImageError,
    ImageFormatError,
    ImageTooLargeError,
    ImageTruncatedError,
)
from robustzs.images.decode import decode_image
from tests.images.samples import (
    bmp,
    every_format,
    gif,
    png,
    png_bomb,
    png_chunk,
    text_bomb,
    tiny_tiff,
)

FORMATS = sorted(every_format())
ROOT = Path(__file__).parents[2]


def cuts(data):
    step = max(1, len(data) // 150)
    return sorted({*range(min(len(data), 80)), *range(0, len(data), step), len(data) - 1})


@pytest.mark.parametrize("name", FORMATS)
def test_a_truncated_file_never_ends_in_anything_but_an_image_error(name):
    data = every_format()[name]
    whole = decode_image(data)
    n_truncated = 0
    for cut in cuts(data):
        try:
            image = decode_image(data[:cut])
        except ImageTruncatedError:
            n_truncated += 1
        except ImageFormatError:
            assert cut < 13  # too short to tell what it is
        else:
            # Only what lies behind the first picture may be missing.
            assert image.tobytes() == whole.tobytes(), cut
    assert n_truncated > 10


@pytest.mark.parametrize("name", ["jpeg", "jpeg-progressive", "png", "webp", "gif", "bmp", "tiff"])
def test_half_a_file_is_truncated(name):
    data = every_format()[name]
    with pytest.raises(ImageTruncatedError, match="ends before the picture does"):
        decode_image(data[: len(data) // 2])


def damage(data, rng):
    data = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 5, 20])):
        at = rng.randrange(min(len(data), 200) if rng.random() < 0.6 else len(data))
        if rng.random() < 0.8:
            data[at] = rng.choice([0, 255, rng.randrange(256), data[at] ^ 1 << rng.randrange(8)])
        else:
            del data[at : at + rng.randrange(1, 9)]
    return bytes(data)


@pytest.mark.parametrize("name", FORMATS)
def test_a_damaged_file_never_ends_in_anything_but_an_image_error(name):
    rng = random.Random(name)
    messages = set()
    for _ in range(120):
        try:
            image = decode_image(damage(every_format()[name], rng))
        except ImageError as error:
            messages.add(str(error))
        else:
            assert image.mode == "RGB"
    assert messages
    for text in ("PIL", "BytesIO", "object at", "decoder", "image file is"):  # Pillow's words
        assert not [message for message in messages if text in message]


def repeated_pages(n_pages):
    pages = b"II*\0" + struct.pack("<I", 8)
    for _ in range(n_pages):
        pages += struct.pack("<HHHIII", 1, 256, 3, 1, 1, len(pages) + 18)
    return pages


MIB = 1 << 20
TOO_LARGE = {
    "PNG of 144 megapixels": lambda: png_bomb(12000, 12000),
    "zTXt bomb": lambda: text_bomb(b"zTXt", 50 * MIB),
    "iTXt bomb": lambda: text_bomb(b"iTXt", 50 * MIB),
    "iCCP bomb": lambda: text_bomb(b"iCCP", 50 * MIB),
    "many small text bombs": lambda: png(
        1, 1, 8, 0, b"\0\0", png_chunk(b"tEXt", b"Comment\0" + bytes(MIB)) * 5
    ),
    "PNG of a million chunks": lambda: png(1, 1, 8, 0, b"\0\0", png_chunk(b"abCd", b"") * MIB),
    "GIF of a million frames": lambda: gif(MIB),
    "GIF of 1001 frames": lambda: gif(1001),
    "GIF with a huge frame on a small screen": lambda: gif(1, image=(65535, 65535)),
    "GIF with a huge screen": lambda: gif(1, screen=(65535, 65535)),
    "GIF of junk": lambda: gif(1)[:19] + b"\1" * 10 * MIB,
    "GIF with a comment in tiny pieces": lambda: gif(1)[:19] + b"!\xfe" + b"\1x" * 4 * MIB,
    "JPEG of comments": lambda: b"\xff\xd8" + b"\xff\xfe\0\2" * MIB,
    "BMP of the largest size": lambda: bmp(2**31 - 1, 2**31 - 1),
    "BMP with the most negative height": lambda: bmp(2, -(2**31)),
    "BMP of many run lengths": lambda: bmp(7000, 7000, 8, 1, pixels=b"\1\0" * 3 * MIB),
    "TIFF of the largest size": lambda: tiny_tiff({256: (4, 1, 2**32 - 1), 257: (4, 1, 2**32 - 1)}),
    "TIFF of 2000 pages": lambda: repeated_pages(2000),
}
DAMAGED = {
    "BMP with a negative width": lambda: bmp(-5, 5),
    "BMP without height": lambda: bmp(5, 0),
    "PNG without a picture": lambda: png(1, 1, 8, 0, b"")[:33] + png_chunk(b"IEND", b""),
    "PNG with two headers": lambda: png(
        1, 1, 8, 0, b"\0\0", png_chunk(b"IHDR", struct.pack(">IIBBBBB", 9999, 9999, 8, 0, 0, 0, 0))
    ),
    "GIF without a picture": lambda: gif(0),
    "JPEG that is empty": lambda: b"\xff\xd8\xff\xd9",
    "TIFF with too many strips": lambda: tiny_tiff(
        {273: (4, 1000, 8), 279: (4, 1000, 8)}, tail=bytes(4000)
    ),
    "TIFF with a gigantic count": lambda: tiny_tiff({273: (4, 2**32 - 1, 8)}),
    "TIFF with gigantic tiles": lambda: tiny_tiff(
        {322: (4, 1, 2**31), 323: (4, 1, 2**31), 324: (4, 1, 8), 325: (4, 1, 4), 273: None}
    ),
    "TIFF with gigantic pixels": lambda: tiny_tiff({277: (4, 1, 2**31)}),
    "TIFF without width": lambda: tiny_tiff({256: None}),
    "TIFF with strips of no rows": lambda: tiny_tiff({278: (4, 1, 0)}),
    "TIFF whose width is a text": lambda: tiny_tiff({256: (2, 1, 50)}),
}


@pytest.mark.parametrize("name", sorted(TOO_LARGE))
def test_bombs_are_refused_at_once(name):
    data = TOO_LARGE[name]()
    started = time.monotonic()
    with pytest.raises(ImageTooLargeError):
        decode_image(data)
    assert time.monotonic() - started < 2.0


@pytest.mark.parametrize("name", sorted(DAMAGED))
def test_contradictions_are_refused(name):
    with pytest.raises(ImageDecodeError):
        decode_image(DAMAGED[name]())


def test_a_tiff_whose_pages_go_in_circles_is_its_first_page():
    assert decode_image(tiny_tiff({}, next_page=8)).size == (2, 2)


def test_a_bmp_from_the_top_down_is_read():
    assert decode_image(bmp(2, -2, pixels=bytes(16))).size == (2, 2)


def test_a_large_comment_costs_no_more_than_its_bytes():
    # Pillow before 12 joins the pieces one by one: quadratic.
    comment = b"!\xfe" + (b"\xff" + b"x" * 255) * 200_000 + b"\0"
    started = time.monotonic()
    assert decode_image(gif(1)[:19] + comment + gif(1)[19:]).size == (1, 1)
    assert time.monotonic() - started < 2.0


def test_a_jpeg_of_endless_scans_is_refused():
    data = every_format()["jpeg-progressive"]
    scan = data.rindex(b"\xff\xda")
    assert decode_image(data[:scan] + data[scan:-2] * 3 + b"\xff\xd9").size == (120, 80)
    with pytest.raises(ImageTooLargeError, match="scans"):
        decode_image(data[:scan] + data[scan:-2] * 101 + b"\xff\xd9")


def test_bombs_stay_within_little_memory():
    """All of them in one process that may not take 1 GiB."""
    script = textwrap.dedent(
        """
        import json, resource
        from robustzs.images.decode import decode_image
        from robustzs.errors import ImageError
        from tests.images.test_hostile import TOO_LARGE, DAMAGED
        bombs = [make() for make in [*TOO_LARGE.values(), *DAMAGED.values()]]
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for data in bombs:
            try:
                decode_image(data)
            except ImageError:
                pass
            else:
                raise SystemExit("a bomb was decoded")
        print(json.dumps(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before))
        """
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        cwd=ROOT,
        capture_output=True,
        timeout=120,
        check=False,
        text=True,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},  # its threads reserve memory by the core
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30)),
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) < 100 * 1024  # KiB above what making the bombs took


def test_running_out_of_memory_is_an_image_error():
    script = textwrap.dedent(
        """
        import resource
        from robustzs.images.decode import decode_image
        from robustzs.errors import ImageTooLargeError
        from tests.images.samples import png_bomb
        bomb = png_bomb(7000, 7000)
        used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + (60 << 20), used + (60 << 20)))
        try:
            decode_image(bomb)
        except ImageTooLargeError as error:
            print(error.message)
        """
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        capture_output=True,
        timeout=120,
        check=True,
        text=True,
    )
    assert "not enough memory" in done.stdout


def test_threads_decode_side_by_side_without_touching_pillow_settings():
    before = (Image.MAX_IMAGE_PIXELS, list(Image.ID))
    results = []

    def work():
        for name in FORMATS:
            results.append((name, decode_image(every_format()[name]).tobytes()))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4 * len(FORMATS)
    assert len(set(results)) == len(FORMATS)
    assert (Image.MAX_IMAGE_PIXELS, list(Image.ID)) == before
