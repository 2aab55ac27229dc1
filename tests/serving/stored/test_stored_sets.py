"""What is kept under ids: whole, owned, bounded, and there after anything was killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from robustzs_serving.stored import (
    PreconditionError,
    Preconditions,
    Store,
    StoreDamagedError,
    StoredNotFoundError,
    StoreFullError,
    StoreUnavailableError,
)

from robustzs.errors import UsageError

PETS = {"labels": ["cat", "dog"]}
BIRDS = {"labels": ["owl", "crane"]}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store", bytes_per_key=40_000)


def _file(store: Store) -> Path:
    (path,) = store.folder.glob("*/*.json")
    return path


def test_what_is_put_is_what_is_got(store: Store) -> None:
    put = store.put("label-sets", "pets", "me", PETS)
    assert put.is_new
    got = store.get("label-sets", "pets", "me")
    assert (got.document, got.etag, got.n_bytes) == (PETS, put.etag, put.n_bytes)
    again = store.put("label-sets", "pets", "me", BIRDS)
    assert not again.is_new
    assert again.etag != put.etag
    assert again.created_at == put.created_at < again.modified_at
    assert store.get("label-sets", "pets", "me").document == BIRDS
    store.delete("label-sets", "pets", "me")
    with pytest.raises(StoredNotFoundError, match="no label set 'pets'"):
        store.get("label-sets", "pets", "me")
    with pytest.raises(StoredNotFoundError):
        store.delete("label-sets", "pets", "me")


def test_the_same_content_has_the_same_etag_in_any_order_of_keys(store: Store) -> None:
    first = store.put("hierarchies", "a", "me", {"x": 1, "y": [2]})
    second = store.put("hierarchies", "a", "me", {"y": [2], "x": 1})
    assert first.etag == second.etag


def test_keys_and_kinds_do_not_see_each_other(store: Store) -> None:
    store.put("label-sets", "pets", "me", PETS)
    for kind, key in (("label-sets", "you"), ("hierarchies", "me")):
        with pytest.raises(StoredNotFoundError):
            store.get(kind, "pets", key)  # type: ignore[arg-type]
        assert store.list(kind, key).items == ()  # type: ignore[arg-type]
    with pytest.raises(StoredNotFoundError):
        store.delete("label-sets", "pets", "you")
    assert store.get("label-sets", "pets", "me").document == PETS


@pytest.mark.parametrize(
    "id_", ["", "..", "a/b", "A", "é", "a" * 65, "a\n", "a.json", "\x00", "a b"]
)
def test_nothing_but_an_id_becomes_part_of_a_path(store: Store, id_: str) -> None:
    for act in (store.get, store.delete, store.signature):
        with pytest.raises(UsageError, match="1 to 64"):
            act("label-sets", id_, "me")
    with pytest.raises(UsageError):
        store.put("label-sets", id_, "me", PETS)
    assert not store.folder.exists()


def test_a_key_is_no_part_of_a_path(store: Store) -> None:
    store.put("label-sets", "pets", "../../etc", PETS)
    assert _file(store).parent.parent == store.folder
    assert "etc" not in str(_file(store).relative_to(store.folder))
    assert _file(store).stat().st_mode & 0o077 == 0
    assert _file(store).parent.stat().st_mode & 0o077 == 0


def test_conditions_hold_or_nothing_changes(store: Store) -> None:
    fresh = Preconditions.from_headers({"if-none-match": "*"})
    put = store.put("label-sets", "pets", "me", PETS, preconditions=fresh)
    with pytest.raises(PreconditionError, match="one already"):
        store.put("label-sets", "pets", "me", BIRDS, preconditions=fresh)
    mine = Preconditions.from_headers({"if-match": f'"other", {put.etag}'})
    changed = store.put("label-sets", "pets", "me", BIRDS, preconditions=mine)
    for act in (
        lambda: store.put("label-sets", "pets", "me", PETS, preconditions=mine),
        lambda: store.delete("label-sets", "pets", "me", preconditions=mine),
    ):
        with pytest.raises(PreconditionError, match="it is"):
            act()
    assert store.get("label-sets", "pets", "me").etag == changed.etag
    anything = Preconditions.from_headers({"if-match": "*"})
    with pytest.raises(PreconditionError, match="nothing"):
        store.put("label-sets", "new", "me", PETS, preconditions=anything)
    with pytest.raises(PreconditionError):
        store.delete("label-sets", "new", "me", preconditions=anything)
    store.delete("label-sets", "pets", "me", preconditions=anything)


def test_weak_tags_match_for_readers_alone() -> None:
    weak = Preconditions.from_headers({"if-match": 'W/"a"', "if-none-match": 'W/"a"'})
    assert weak.is_known('"a"')
    with pytest.raises(PreconditionError, match="If-Match"):
        weak.check('"a"')


@pytest.mark.parametrize("text", ["", "a", '"a', '"a" "b"', '"a",', "*,*", '"a"' * 1000, '"\n"'])
def test_what_is_no_tag_is_refused(text: str) -> None:
    for name in ("if-match", "if-none-match"):
        with pytest.raises(UsageError, match=name):
            Preconditions.from_headers({name: text})


def test_a_key_has_its_room_and_no_more(store: Store) -> None:
    large = {"labels": ["x" * 30_000]}
    store.put("label-sets", "large", "me", large)
    with pytest.raises(StoreFullError, match="40000"):
        store.put("hierarchies", "other", "me", large)
    store.put("label-sets", "large", "me", {"labels": ["y" * 32_000]})  # instead of, not beside
    store.put("hierarchies", "other", "you", large)
    for number in range(20):  # tiny files take room, too
        try:
            store.put("label-sets", f"tiny-{number}", "them", PETS)
        except StoreFullError:
            break
    assert number == 40_000 // 4096
    assert len(store.list("label-sets", "them").items) == number


def test_lists_come_in_pages(store: Store) -> None:
    for id_ in ("b", "a", "c"):
        store.put("label-sets", id_, "me", PETS)
    first = store.list("label-sets", "me", limit=2)
    assert ([item.id for item in first.items], first.next_after) == (["a", "b"], "b")
    last = store.list("label-sets", "me", limit=2, after="b")
    assert ([item.id for item in last.items], last.next_after) == (["c"], None)
    assert first.items[0].etag == store.get("label-sets", "a", "me").etag
    for limit in (0, 1001):
        with pytest.raises(UsageError, match="limit"):
            store.list("label-sets", "me", limit=limit)


@pytest.mark.parametrize("damage", ["empty", "cut", "flipped", "other", "not-json", "head"])
def test_a_damaged_file_is_told_and_can_be_mended(store: Store, damage: str) -> None:
    old = store.put("label-sets", "pets", "me", PETS)
    path = _file(store)
    data = path.read_bytes()
    path.write_bytes(
        {
            "empty": b"",
            "cut": data[:-3],
            "flipped": data.replace(b"cat", b"cap"),
            "other": data.replace(b'"id": "pets"', b'"id": "pest"'),
            "not-json": b"\xff\xfe\n" + data,
            "head": data.partition(b"\n")[0],
        }[damage]
    )
    with pytest.raises(StoreDamagedError, match="put it again"):
        store.get("label-sets", "pets", "me")
    with pytest.raises(PreconditionError):
        store.put("label-sets", "pets", "me", PETS, preconditions=Preconditions(match=(old.etag,)))
    assert not store.put("label-sets", "pets", "me", PETS).is_new
    assert store.get("label-sets", "pets", "me").document == PETS
    path.write_bytes(b"")
    assert store.list("label-sets", "me").items == ()
    store.delete("label-sets", "pets", "me")


def test_a_disk_that_refuses_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    store = Store(tmp_path / "file" / "store", bytes_per_key=40_000)
    with pytest.raises(StoreUnavailableError) as refused:
        store.put("label-sets", "pets", "me", PETS)
    assert str(tmp_path) not in str(refused.value)


def test_the_signature_changes_with_every_put(store: Store) -> None:
    store.put("label-sets", "pets", "me", PETS)
    first = store.signature("label-sets", "pets", "me")
    assert store.signature("label-sets", "pets", "me") == first
    store.put("label-sets", "pets", "me", {"labels": ["cow", "dog"]})
    assert store.signature("label-sets", "pets", "me") != first
    with pytest.raises(StoredNotFoundError):
        store.signature("label-sets", "none", "me")


_WRITER = """
import sys
from pathlib import Path
from robustzs_serving.stored import Preconditions, PreconditionError, Store
store = Store(Path(sys.argv[1]), bytes_per_key=10_000_000)
wanted = int(sys.argv[2])
done = 0
while done < wanted:
    now = store.get("label-sets", "count", "me")
    document = {"n": now.document["n"] + 1, "filling": "x" * 50_000}
    try:
        store.put("label-sets", "count", "me", document,
                  preconditions=Preconditions(match=(now.etag,)))
        done += 1
    except PreconditionError:
        pass
"""


def test_processes_that_count_together_lose_no_step(tmp_path: Path) -> None:
    store = Store(tmp_path, bytes_per_key=10_000_000)
    store.put("label-sets", "count", "me", {"n": 0})
    command = [sys.executable, "-c", _WRITER, str(tmp_path), "15"]
    processes = [subprocess.Popen(command) for _ in range(3)]
    assert [process.wait(timeout=120) for process in processes] == [0, 0, 0]
    assert store.get("label-sets", "count", "me").document["n"] == 45


def test_a_writer_killed_anywhere_leaves_the_old_or_the_new(tmp_path: Path) -> None:
    store = Store(tmp_path, bytes_per_key=10_000_000)
    store.put("label-sets", "count", "me", {"n": 0})
    command = [sys.executable, "-c", _WRITER, str(tmp_path), "1000000"]
    seen = 0
    for delay in (0.0, 0.003, 0.007, 0.011):
        process = subprocess.Popen(command)
        while store.get("label-sets", "count", "me").document["n"] == seen:
            assert process.poll() is None
            time.sleep(0.001)
        time.sleep(delay)
        os.kill(process.pid, signal.SIGKILL)
        process.wait(timeout=30)
        seen = store.get("label-sets", "count", "me").document["n"]
    assert seen > 3
    store.put("label-sets", "count", "me", {"n": 0})  # no lock was left behind
    assert not list(tmp_path.glob("*/.tmp-*"))


def test_readers_beside_a_writer_see_whole_documents(store: Store) -> None:
    store.put("label-sets", "pets", "me", PETS)
    stop = threading.Event()
    seen: set[int] = set()
    failed: list[BaseException] = []

    def read() -> None:
        try:
            while not stop.is_set():
                seen.add(len(store.get("label-sets", "pets", "me").document["labels"]))
        except StoreDamagedError as error:
            failed.append(error)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for n_labels in range(1, 30):
        store.put("label-sets", "pets", "me", {"labels": ["x" * 500] * n_labels})
    stop.set()
    for reader in readers:
        reader.join()
    assert not failed
    assert len(seen) > 2
