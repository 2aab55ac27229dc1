"""Sources are found lazily; whatever a name leads to, one bad one is one item."""

import os
import socket
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import pytest

from robustzs.errors import ImageSourceError, ImageTooLargeError
from robustzs.images.limits import ImageLimits
from robustzs.images.sources import ImageSource, iter_sources
from tests.images.samples import every_format
from tests.privileges import without_file_powers

ROOT = Path(__file__).parents[2]


def names(*inputs):
    return [source.name for source in iter_sources(inputs)]


def the_error(*inputs):
    (source,) = iter_sources(inputs)
    with pytest.raises(ImageSourceError) as caught:
        source.read()
    return str(caught.value)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("b.jpg", "a.PNG", "sub/c.webp", "sub/deep/d.tiff", "notes.txt", "[x].gif"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return tmp_path / "photos"


def test_a_file_is_read_whole_under_the_name_it_was_given(folder):
    (source,) = iter_sources(["photos/../photos/b.jpg"])
    assert source == ImageSource("photos/../photos/b.jpg")
    assert source.read() == b"b.jpg"


def test_a_named_file_may_have_any_suffix(folder):
    (source,) = iter_sources(["photos/notes.txt"])
    assert source.read() == b"notes.txt"


def test_a_folder_gives_its_images_sorted_and_below(folder):
    assert names("photos") == [
        "photos/[x].gif",
        "photos/a.PNG",
        "photos/b.jpg",
        "photos/sub/c.webp",
        "photos/sub/deep/d.tiff",
    ]


def test_order_and_duplicates_are_kept(folder):
    given = ["photos/b.jpg", "photos/a.PNG", "photos/b.jpg"]
    assert names(*given) == given


def test_patterns_match_files(folder):
    assert names("photos/*.jpg") == ["photos/b.jpg"]
    assert names("photos/*/*.web?") == ["photos/sub/c.webp"]
    assert names("photos/**/*.tiff") == ["photos/sub/deep/d.tiff"]


def test_a_file_with_a_pattern_in_its_name_is_that_file(folder):
    assert names("photos/[x].gif") == ["photos/[x].gif"]


def test_a_path_is_never_a_pattern(folder):
    assert "no file" in the_error(Path("photos/*.jpg"))


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("missing.jpg", "no file 'missing.jpg'"),
        ("photos/*.bmp", "no file matches"),
        ("https://example.com/cat.jpg", "is an address"),
        ("", "not a file name"),
        ("a\0b", "not a file name"),
        ("x" * 5000, "no file"),
    ],
)
def test_a_name_that_leads_nowhere_is_an_item(folder, name, what):
    assert what in the_error(name)


def test_a_folder_without_images_is_an_item(tmp_path):
    assert "holds no images" in the_error(tmp_path)


def test_one_bad_name_does_not_hide_the_others(folder):
    found = list(iter_sources(["missing.jpg", "photos/b.jpg"]))
    assert [source.error is None for source in found] == [False, True]


def test_links_may_point_at_files_but_loops_are_not_followed(folder):
    (folder / "loop").symlink_to(folder, target_is_directory=True)
    (folder / "loop.jpg").symlink_to(folder, target_is_directory=True)
    (folder / "alias.jpg").symlink_to(folder / "b.jpg")
    (folder / "dead.jpg").symlink_to(folder / "nothing")
    (folder / "self.jpg").symlink_to(folder / "self.jpg")
    found = names("photos")
    assert not any("loop" in name for name in found)
    assert ImageSource("photos/alias.jpg").read() == b"b.jpg"
    assert "link to nothing" in the_error("photos/dead.jpg")
    assert "cannot be read" in the_error("photos/self.jpg")


def test_pipes_devices_and_sockets_are_refused_without_waiting(folder):
    os.mkfifo(folder / "pipe.jpg")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind("photos/s.jpg")
    started = time.monotonic()
    assert "is a pipe" in the_error("photos/pipe.jpg")
    assert "is a socket" in the_error("photos/s.jpg")
    assert "is a device" in the_error("/dev/zero")
    assert "is a device" in the_error("/dev/tty")
    assert time.monotonic() - started < 2.0
    listener.close()
    pipe = next(source for source in iter_sources(["photos"]) if "pipe" in source.name)
    with pytest.raises(ImageSourceError, match="pipe"):
        pipe.read()


def test_a_folder_read_as_a_file_says_so(folder):
    with pytest.raises(ImageSourceError, match="is a folder"):
        ImageSource("photos").read()


def test_an_unreadable_file_says_so(folder):
    (folder / "b.jpg").chmod(0)
    with without_file_powers():
        assert "Permission denied" in the_error("photos/b.jpg")


def test_the_byte_limit_holds_for_files_of_any_reported_size(folder):
    with pytest.raises(ImageTooLargeError, match=r"'photos/b\.jpg' has 5 bytes"):
        ImageSource("photos/b.jpg").read(ImageLimits(max_bytes=4))
    assert ImageSource("photos/b.jpg").read(ImageLimits(max_bytes=5)) == b"b.jpg"
    # Files of /proc report no size and are only known by reading.
    with pytest.raises(ImageTooLargeError):
        ImageSource("/proc/self/status").read(ImageLimits(max_bytes=4))


def test_a_sparse_file_of_a_terabyte_is_refused_unread(folder):
    with (folder / "huge.jpg").open("wb") as stream:
        stream.truncate(1 << 40)
    with pytest.raises(ImageTooLargeError):
        ImageSource("photos/huge.jpg").read()


def read_stdin(data, max_bytes, times=1):
    script = (
        "from robustzs.images.sources import iter_sources, ImageSource\n"
        "from robustzs.images.limits import ImageLimits\n"
        "from robustzs.errors import ImageError\n"
        f"for source in iter_sources(['-'] * {times}):\n"
        "    try:\n"
        f"        print(len(source.read(ImageLimits(max_bytes={max_bytes}))))\n"
        "    except ImageError as error:\n"
        "        print(type(error).__name__, error.message)\n"
    )
    return subprocess.run(
        [sys.executable, "-c", script], input=data, capture_output=True, cwd=ROOT, check=True
    ).stdout.decode()


def test_standard_input_is_read_once_and_capped():
    assert read_stdin(b"x" * 10, 10) == "10\n"
    assert "ImageTooLargeError" in read_stdin(b"x" * 11, 10)
    assert "standard input is empty" in read_stdin(b"", 10)
    assert read_stdin(b"x", 10, times=2).startswith("1\nImageSourceError standard input is empty")


def test_looking_does_not_read_and_does_not_pile_up(tmp_path):
    data = every_format()["jpeg"]
    for index in range(40):
        below = tmp_path / f"{index:02}"
        below.mkdir()
        for number in range(50):
            (below / f"{number}.jpg").write_bytes(data)
    sources = iter_sources([tmp_path] * 5)
    next(sources)
    tracemalloc.start()
    count = sum(1 for _ in sources)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 5 * 2000 - 1
    assert peak < 200_000
