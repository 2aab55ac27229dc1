"""A bundle is written whole or not at all, whatever happens."""

import json
import os
import resource
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from robustzs.bundle import writer as writer_module
from robustzs.bundle.store import Bundle
from robustzs.bundle.writer import BundleWriter
from robustzs.errors import (
    BundleExistsError,
    BundleManifestError,
    BundlePathError,
    BundleWriteError,
    OnnxMalformedError,
)

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def parts(tiny_bundle):
    """The tiny bundle's files, and its record without what the writer fills in."""
    fields = json.loads((tiny_bundle / "bundle.json").read_text())
    for name in ("files", "schema_version", "created_with"):
        del fields[name]
    files = {path.name: path.read_bytes() for path in tiny_bundle.iterdir()}
    del files["bundle.json"]
    return files, fields


def write(target, parts, *, overwrite=False, **changes):
    files, fields = parts
    with BundleWriter(target, overwrite=overwrite) as writer:
        for name, data in files.items():
            writer.add_file(name, data)
        return writer.finish({**fields, **changes})


def listing(folder):
    return sorted(path.name for path in folder.iterdir())


def test_what_was_written_is_read_back(tmp_path, parts):
    bundle = write(tmp_path / "new/folder/tiny", parts)
    assert bundle.path == tmp_path / "new/folder/tiny"
    assert Bundle.load(bundle.path).digest == bundle.digest
    assert bundle.file("tokenizer.json").read_bytes() == parts[0]["tokenizer.json"]
    assert listing(tmp_path / "new/folder") == ["tiny"]


def test_the_same_input_gives_the_same_bundle(tmp_path, parts):
    first = write(tmp_path / "first", parts)
    files, fields = parts
    second = write(tmp_path / "second", (dict(reversed(files.items())), fields))
    assert first.digest == second.digest
    for name in listing(first.path):
        assert (first.path / name).read_bytes() == (second.path / name).read_bytes()


def test_a_bundle_can_be_written_from_the_record_of_another(tmp_path, parts):
    bundle = write(tmp_path / "first", parts)
    with BundleWriter(tmp_path / "second") as writer:
        for name in parts[0]:
            writer.add_file(name, bundle.file(name))
        assert writer.finish(bundle.manifest).digest == bundle.digest


def test_files_may_be_written_in_place_and_in_folders(tmp_path, parts):
    files, fields = parts
    with BundleWriter(tmp_path / "tiny") as writer:
        for name, data in files.items():
            writer.path_for(name).write_bytes(data)
        writer.path_for("extra/notes.txt").write_text("hello")
        bundle = writer.finish(fields)
    assert bundle.file("extra/notes.txt").read_text() == "hello"


def test_others_may_read_the_bundle(tmp_path, parts):
    path = write(tmp_path / "tiny", parts).path
    assert path.stat().st_mode & 0o777 == 0o755
    assert {file.stat().st_mode & 0o777 for file in path.iterdir()} == {0o644}


# --- what is refused


@pytest.mark.parametrize("name", ["../x", "/x", "a\\b", "bundle.json", "BUNDLE.JSON"])
def test_names_that_lead_astray_are_refused(tmp_path, name):
    with BundleWriter(tmp_path / "tiny") as writer, pytest.raises(BundlePathError):
        writer.add_file(name, b"x")
    assert listing(tmp_path) == []


def test_a_name_given_twice_is_refused(tmp_path):
    with BundleWriter(tmp_path / "tiny") as writer:
        writer.add_file("a", b"1")
        with pytest.raises(BundlePathError, match="already added"):
            writer.add_file("a", b"2")


def test_a_link_among_the_files_is_refused(tmp_path, parts):
    files, fields = parts
    (tmp_path / "elsewhere").write_bytes(b"x")
    with BundleWriter(tmp_path / "tiny") as writer:
        for name, data in files.items():
            writer.add_file(name, data)
        writer.path_for("link").symlink_to(tmp_path / "elsewhere")
        with pytest.raises(BundlePathError, match="link"):
            writer.finish(fields)
    assert listing(tmp_path) == ["elsewhere"]


def test_every_problem_of_the_record_is_listed(tmp_path, parts):
    with pytest.raises(BundleManifestError, match=r"embed_dim: .*; .*colour: "):
        write(tmp_path / "tiny", parts, embed_dim=0, colour="red")
    assert listing(tmp_path) == []


def test_a_bundle_that_could_not_be_read_is_not_written(tmp_path, parts):
    files, fields = parts
    with pytest.raises(OnnxMalformedError):
        write(tmp_path / "tiny", ({**files, "text_encoder.onnx": b"no graph"}, fields))
    assert listing(tmp_path) == []


def test_a_missing_source_is_named(tmp_path):
    with (
        BundleWriter(tmp_path / "tiny") as writer,
        pytest.raises(BundleWriteError, match="nothing"),
    ):
        writer.add_file("a", tmp_path / "nothing")


def test_a_closed_writer_writes_nothing(tmp_path):
    writer = BundleWriter(tmp_path / "tiny")
    with pytest.raises(BundleWriteError, match="not open"):
        writer.add_file("a", b"x")


# --- existing targets


def test_an_existing_bundle_is_kept_unless_overwriting_is_allowed(tmp_path, parts):
    old = write(tmp_path / "tiny", parts)
    with pytest.raises(BundleExistsError, match="already holds something"):
        write(tmp_path / "tiny", parts, description="new")
    assert Bundle.load(old.path).digest == old.digest
    new = write(tmp_path / "tiny", parts, overwrite=True, description="new")
    assert Bundle.load(new.path).digest == new.digest != old.digest
    assert listing(tmp_path) == ["tiny"]


def test_an_empty_folder_is_no_obstacle(tmp_path, parts):
    (tmp_path / "tiny").mkdir()
    write(tmp_path / "tiny", parts)


def test_a_folder_that_is_no_bundle_is_never_replaced(tmp_path, parts):
    (tmp_path / "home").mkdir()
    (tmp_path / "home/thesis.tex").write_text("years of work")
    with pytest.raises(BundleExistsError, match="not a bundle"):
        write(tmp_path / "home", parts, overwrite=True)
    assert listing(tmp_path / "home") == ["thesis.tex"]


def test_a_file_or_link_is_never_replaced(tmp_path, parts):
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in ("file", "link"):
        with pytest.raises(BundleExistsError, match="not a folder"):
            write(tmp_path / name, parts, overwrite=True)
    assert listing(tmp_path) == ["file", "link"]


def test_without_an_exchange_the_old_bundle_steps_aside_and_comes_back(
    tmp_path, parts, monkeypatch
):
    monkeypatch.setattr(writer_module, "_exchange_at_once", lambda new, old: False)
    old = write(tmp_path / "tiny", parts)
    new = write(tmp_path / "tiny", parts, overwrite=True, description="new")
    assert Bundle.load(new.path).digest == new.digest != old.digest
    assert listing(tmp_path) == ["tiny"]

    real_rename = os.rename
    calls = []

    def failing_rename(source, target):
        calls.append(source)
        if len(calls) == 2:
            raise OSError(5, "Input/output error")
        real_rename(source, target)

    monkeypatch.setattr(os, "rename", failing_rename)
    with pytest.raises(BundleWriteError, match="Input/output error"):
        write(tmp_path / "tiny", parts, overwrite=True, description="newer")
    assert Bundle.load(new.path).digest == new.digest
    assert listing(tmp_path) == ["tiny"]


# --- interruptions


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, SystemExit, RuntimeError])
def test_an_interruption_leaves_nothing(tmp_path, parts, interruption):
    old = write(tmp_path / "tiny", parts)

    def interrupted():
        with BundleWriter(old.path, overwrite=True) as writer:
            writer.add_file("a", b"x")
            raise interruption

    with pytest.raises(interruption):
        interrupted()
    assert listing(tmp_path) == ["tiny"]
    assert Bundle.load(old.path).digest == old.digest


def test_leaving_without_finishing_leaves_nothing(tmp_path):
    with BundleWriter(tmp_path / "tiny") as writer:
        writer.add_file("a", b"x")
        assert len(listing(tmp_path)) == 1
    assert listing(tmp_path) == []


def run(script, *arguments, **options):
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        **options,
    )


def test_a_full_disk_leaves_nothing(tmp_path):
    """The limit on file size stands in for the disk's end: the same failing write."""
    done = run(
        """
        import sys
        from robustzs.bundle.writer import BundleWriter
        from robustzs.errors import BundleWriteError
        try:
            with BundleWriter(sys.argv[1]) as writer:
                writer.add_file("small", b"x" * 100)
                writer.add_file("weights.bin", b"x" * 1_000_000)
        except BundleWriteError as error:
            print(error)
        """,
        tmp_path / "tiny",
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)),
    )
    assert "could not be written: File too large" in done.stdout, done.stderr
    assert listing(tmp_path) == []


def test_a_really_full_disk_leaves_nothing(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small disk is not allowed here")
    try:
        with (
            pytest.raises(BundleWriteError, match="No space left"),
            BundleWriter(disk / "tiny") as writer,
        ):
            writer.add_file("weights.bin", b"x" * 1_000_000)
        assert listing(disk) == []
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_folder_that_may_not_be_written_is_a_write_error(tmp_path, parts):
    (tmp_path / "file").write_text("x")
    with pytest.raises(BundleWriteError, match="could not be written"):
        write(tmp_path / "file/tiny", parts)


def test_a_killed_writer_leaves_no_bundle_but_a_hidden_rest(tmp_path, parts):
    done = run(
        """
        import os, signal, sys
        from robustzs.bundle.writer import BundleWriter
        with BundleWriter(sys.argv[1]) as writer:
            writer.add_file("a", b"x")
            os.kill(os.getpid(), signal.SIGKILL)
        """,
        tmp_path / "tiny",
    )
    assert done.returncode == -signal.SIGKILL
    assert not (tmp_path / "tiny").exists()
    assert all(name.startswith(".tiny.partial-") for name in listing(tmp_path))
    write(tmp_path / "tiny", parts)


def test_of_writers_side_by_side_one_wins_and_the_bundle_is_whole(tmp_path, parts):
    outcomes = []
    gate = threading.Barrier(4)

    def work(index):
        gate.wait()
        try:
            outcomes.append(write(tmp_path / "tiny", parts, description=str(index)).digest)
        except BundleExistsError:
            outcomes.append(None)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    winners = [digest for digest in outcomes if digest is not None]
    assert len(outcomes) == 4
    assert len(winners) == 1
    assert Bundle.load(tmp_path / "tiny").digest == winners[0]
    assert listing(tmp_path) == ["tiny"]


def test_readers_never_see_half_a_bundle_while_it_is_replaced(tmp_path, parts):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    if not writer_module._exchange_at_once(tmp_path / "one", tmp_path / "two"):
        pytest.skip("this system cannot swap two folders at once")
    digests = {write(tmp_path / "tiny", parts).digest}
    done = threading.Event()
    seen = set()
    problems = []

    def read():
        while not done.is_set():
            manifest = (tmp_path / "tiny/bundle.json").read_bytes()
            seen.add(manifest)
            if not manifest.endswith(b"}\n"):
                problems.append(manifest)

    reader = threading.Thread(target=read)
    reader.start()
    for index in range(10):
        digests.add(write(tmp_path / "tiny", parts, overwrite=True, description=str(index)).digest)
    done.set()
    reader.join()
    assert problems == []
    assert len(digests) == 11
    assert len(seen) > 1
