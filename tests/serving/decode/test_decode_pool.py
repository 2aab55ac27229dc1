"""Real decode processes, real photographs, real kills."""

from __future__ import annotations

import asyncio
import io
import os
import signal
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
from PIL import Image
from robustzs_serving.decode import wire
from robustzs_serving.decode.pool import DecodePool
from robustzs_serving.errors import (
    DeadlineError,
    DecodeCrashedError,
    DecodeTimeoutError,
    QueueFullError,
    ShuttingDownError,
)
from robustzs_serving.observe.metrics import Metrics

from robustzs.errors import (
    ImageDecodeError,
    ImageError,
    ImageFormatError,
    ImageTooLargeError,
    ImageTruncatedError,
)
from robustzs.images.config import PreprocessConfig
from robustzs.images.decode import decode_image
from robustzs.images.preprocess import preprocess

PHOTOS = Path(__file__).parents[3] / "examples" / "photos"
CONFIG = PreprocessConfig(image_size=(224, 224))
T = TypeVar("T")


class Counted(Metrics):
    def __init__(self) -> None:
        self.outcomes: list[str] = []
        self.replaced: list[str] = []

    def decoded(self, seconds: float, outcome: str) -> None:
        self.outcomes.append(outcome)

    def decoder_replaced(self, reason: str) -> None:
        self.replaced.append(reason)


def soon(seconds: float = 60.0) -> float:
    return time.monotonic() + seconds


def with_pool(test: Callable[[DecodePool], Awaitable[T]], n: int = 1, **options: object) -> T:
    async def run() -> T:
        pool = DecodePool(n, CONFIG, **options)  # type: ignore[arg-type]
        await pool.start()
        try:
            return await test(pool)
        finally:
            pids = pool.pids
            await pool.close()
            assert not [pid for pid in pids if _alive(pid)], "a decoder outlived its pool"

    return asyncio.run(run())


def photo(name: str = "coffee.jpg") -> bytes:
    return (PHOTOS / name).read_bytes()


def expected(data: bytes) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return preprocess(decode_image(data), CONFIG)


def slow_png(side: int = 5500) -> bytes:
    """A small file that takes about a second to decode and resize: noise-free, hence tiny."""
    row = b"\0" + bytes(side * 3)
    packed = zlib.compressobj(9)
    body = b"".join(packed.compress(row) for _ in range(side)) + packed.flush()

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")
    )


SLOW = slow_png()


def test_pixels_are_those_of_preprocess_bit_for_bit() -> None:
    files = [photo(name) for name in ("coffee.jpg", "rocket.jpg", "chelsea.png")]

    async def all_at_once(pool: DecodePool) -> list[np.ndarray]:
        return await asyncio.gather(*(pool.decode(data, deadline=soon()) for data in files * 3))

    for data, values in zip(files * 3, with_pool(all_at_once, n=2), strict=True):
        assert values.dtype == np.uint8
        pixels = values.astype(np.float32) / np.float32(255.0)
        assert np.array_equal(pixels, expected(data))


def test_every_value_of_a_byte_comes_back_from_float32() -> None:
    values = np.arange(256, dtype=np.uint8)
    pixels = values.astype(np.float32) / np.float32(255.0)
    assert np.array_equal(np.rint(pixels * np.float32(255.0)).astype(np.uint8), values)


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"", ImageFormatError),
        (b"hello", ImageFormatError),
        (photo()[:2000], ImageTruncatedError),
        (b"\xff\xd8\xff\xd9" + bytes(100), ImageDecodeError),
        (SLOW[:16] + struct.pack(">II", 9000, 9000) + SLOW[24:200], ImageTooLargeError),
    ],
)
def test_refusals_are_the_errors_of_core_word_for_word(data: bytes, kind: type[ImageError]) -> None:
    with pytest.raises(kind) as here:
        decode_image(data)

    async def decode(pool: DecodePool) -> None:
        with pytest.raises(kind) as there:
            await pool.decode(data, deadline=soon())
        assert str(there.value) == str(here.value)
        assert (await pool.decode(photo(), deadline=soon())).shape == (3, 224, 224)

    with_pool(decode)


def test_a_file_that_takes_too_long_is_given_up_and_its_process_replaced() -> None:
    metrics = Counted()

    async def decode(pool: DecodePool) -> None:
        (before,) = pool.pids
        with pytest.raises(DecodeTimeoutError, match=r"0\.05 s"):
            await pool.decode(SLOW, deadline=soon())
        assert not _alive(before)
        assert metrics.outcomes == ["timeout"]
        assert metrics.replaced == ["timeout"]
        assert pool.pids != [before]

    with_pool(decode, seconds=0.05, metrics=metrics)


def test_neighbours_of_an_image_that_hangs_do_not_notice() -> None:
    async def decode(pool: DecodePool) -> None:
        os.kill(pool.pids[0], signal.SIGSTOP)
        results = await asyncio.gather(
            *(pool.decode(photo(), deadline=soon()) for _ in range(8)), return_exceptions=True
        )
        assert sum(isinstance(result, DecodeTimeoutError) for result in results) == 1
        good = [result for result in results if not isinstance(result, BaseException)]
        assert len(good) == 7
        assert all(np.array_equal(values, good[0]) for values in good)

    with_pool(decode, n=2, seconds=3.0)


def test_an_image_survives_the_death_of_its_process_once() -> None:
    metrics = Counted()

    async def decode(pool: DecodePool) -> None:
        (before,) = pool.pids
        os.kill(before, signal.SIGSTOP)
        work = asyncio.ensure_future(pool.decode(photo(), deadline=soon()))
        await asyncio.sleep(0.1)
        os.kill(before, signal.SIGKILL)
        pixels = (await work).astype(np.float32) / np.float32(255.0)
        assert np.array_equal(pixels, expected(photo()))
        assert metrics.replaced == ["crashed"]
        assert metrics.outcomes == ["ok"]

    with_pool(decode, seconds=30.0, metrics=metrics)


def test_a_second_death_is_the_images_own() -> None:
    async def decode(pool: DecodePool) -> None:
        work = asyncio.ensure_future(pool.decode(SLOW, deadline=soon()))
        killed: set[int] = set()
        while not work.done():
            for pid in set(pool.pids) - killed:
                os.kill(pid, signal.SIGKILL)
                killed.add(pid)
            await asyncio.sleep(0.005)
        with pytest.raises(DecodeCrashedError):
            await work
        assert len(killed) >= 2
        assert (await pool.decode(photo(), deadline=soon())).shape == (3, 224, 224)

    with_pool(decode, seconds=30.0)


def test_processes_that_die_idle_come_back_by_themselves() -> None:
    async def decode(pool: DecodePool) -> None:
        before = pool.pids
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        deadline = soon(30.0)
        while len(pool.pids) < 2 or set(pool.pids) & set(before):
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)

    with_pool(decode, n=2)


def test_what_waits_is_bounded_and_deadlines_hold() -> None:
    async def decode(pool: DecodePool) -> None:
        (pid,) = pool.pids
        os.kill(pid, signal.SIGSTOP)
        first = [asyncio.ensure_future(pool.decode(photo(), deadline=soon())) for _ in range(3)]
        await asyncio.sleep(0.05)
        assert pool.free == 0
        with pytest.raises(QueueFullError):
            await pool.decode(photo(), deadline=soon())
        first[1].cancel()
        await asyncio.wait([first[1]])
        assert pool.free == 1, "who leaves makes room"
        with pytest.raises(DeadlineError):
            await pool.decode(photo("rocket.jpg"), deadline=soon(0.1))
        with pytest.raises(DeadlineError):
            await pool.decode(photo(), deadline=soon(-1.0))
        os.kill(pid, signal.SIGCONT)
        for values in await asyncio.gather(first[0], first[2]):
            assert np.array_equal(values / np.float32(255.0), expected(photo()))
        chelsea = await pool.decode(photo("chelsea.png"), deadline=soon())
        assert np.array_equal(chelsea / np.float32(255.0), expected(photo("chelsea.png")))

    with_pool(decode, max_waiting=2, seconds=30.0)


def test_closing_finishes_what_was_accepted() -> None:
    async def run() -> None:
        pool = DecodePool(1, CONFIG)
        await pool.start()
        accepted = [asyncio.ensure_future(pool.decode(photo(), deadline=soon())) for _ in range(5)]
        await asyncio.sleep(0)
        await pool.close()
        assert all(values.shape == (3, 224, 224) for values in await asyncio.gather(*accepted))
        with pytest.raises(ShuttingDownError):
            await pool.decode(photo(), deadline=soon())

    asyncio.run(run())


def test_memory_returns_after_large_images() -> None:
    async def decode(pool: DecodePool) -> tuple[int, int, int]:
        (pid,) = pool.pids
        await pool.decode(photo(), deadline=soon())
        before = _resident(pid)
        for _ in range(3):
            await pool.decode(SLOW, deadline=soon())
        assert pool.pids == [pid]
        return before, _resident(pid), _peak(pid)

    before, after, peak = with_pool(decode, seconds=60.0)
    assert peak - before > 100e6, "the image was meant to be large"
    assert after - before < 24e6


def test_an_image_beyond_the_memory_of_a_decoder_is_refused_and_its_process_lives() -> None:
    async def decode(pool: DecodePool) -> None:
        before = pool.pids
        with pytest.raises(ImageTooLargeError, match="memory"):
            await pool.decode(SLOW, deadline=soon())
        assert (await pool.decode(photo(), deadline=soon())).shape == (3, 224, 224)
        assert pool.pids == before

    with_pool(decode, memory_bytes=220_000_000, seconds=60.0)


def test_a_decoder_imports_only_what_decoding_needs() -> None:
    code = (
        "import sys, robustzs_serving.decode.worker;"
        "print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    heavy = {"onnxruntime", "bentoml", "starlette", "tokenizers", "torch", "nltk", "uvicorn"}
    assert not loaded & heavy
    assert "PIL" in loaded


def test_a_decoder_sees_no_secrets_of_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROBUSTZS_SECRET", "secret")

    async def look(pool: DecodePool) -> bytes:
        return Path(f"/proc/{pool.pids[0]}/environ").read_bytes()

    assert b"secret" not in with_pool(look)


def test_a_decoder_ends_with_its_service() -> None:
    code = (
        "import asyncio, os\n"
        "from robustzs.images.config import PreprocessConfig\n"
        "from robustzs_serving.decode.pool import DecodePool\n"
        "async def main():\n"
        "    pool = DecodePool(1, PreprocessConfig(image_size=(8, 8)))\n"
        "    await pool.start()\n"
        "    print(*pool.pids, flush=True)\n"
        "    os._exit(1)\n"
        "asyncio.run(main())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    pid = int(done.stdout)
    deadline = soon(20.0)
    while _alive(pid):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_refusals_on_the_wire_are_bounded_and_plain() -> None:
    import socket

    ours, theirs = socket.socketpair()
    with ours, theirs:
        error = ImageDecodeError("bad \x1b[31m\nline " + "é" * 5000, hint="h" * 5000)
        theirs.sendall(wire.pack_refusal(error))
        assert wire.read(ours, 1, soon()) == wire.REFUSED
        refusal = wire.read_refusal(ours, soon())
        assert refusal.kind is ImageDecodeError
        assert refusal.message.startswith("bad ?[31m?line é")
        assert refusal.message.isprintable()
        assert len(refusal.message) + len(refusal.hint) <= wire.MAX_TEXT
        for forged in (b"\x09" + struct.pack("<H", 5), b"\x00" + struct.pack("<H", 65535)):
            theirs.sendall(forged)
            with pytest.raises(wire.Gone):
                wire.read_refusal(ours, soon())


def test_formats_pass_through() -> None:
    picture = Image.open(io.BytesIO(photo())).convert("RGB").resize((120, 90))

    async def decode(pool: DecodePool) -> None:
        for name in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"):
            stream = io.BytesIO()
            picture.save(stream, name)
            values = await pool.decode(stream.getvalue(), deadline=soon())
            pixels = values.astype(np.float32) / np.float32(255.0)
            assert np.array_equal(pixels, expected(stream.getvalue())), name

    with_pool(decode)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0]
    return state not in ("Z", "X")


def _resident(pid: int) -> int:
    return _status(pid, "VmRSS")


def _peak(pid: int) -> int:
    return _status(pid, "VmHWM")


def _status(pid: int, key: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    raise KeyError(key)
