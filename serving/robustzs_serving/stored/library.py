"""What is kept under ids, as labels and trees that are ready to use."""

from __future__ import annotations

import json
import os
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from robustzs.errors import RobustZSError
from robustzs.hierarchy.tree import Hierarchy
from robustzs.labels.label import Label
from robustzs.labels.label_set import LabelSet
from robustzs_serving.observe.metrics import Metrics
from robustzs_serving.stored.errors import StoreDamagedError
from robustzs_serving.stored.store import Kind, Store

if TYPE_CHECKING:
    from robustzs_serving.ingest import ClassifyCall

_CACHED_BYTES = 16_000_000
"""Of files whose labels and trees are kept in memory, for each kind."""

_Made = TypeVar("_Made")
_Place = tuple[str, str]
_Signature = tuple[int, int, int]


def default_folder() -> Path:
    """Where things are kept if no folder is set: ``$XDG_DATA_HOME/robustzs/stored``."""
    base = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(base) / "robustzs" / "stored"


def label_set_document(labels: LabelSet) -> dict[str, Any]:
    """What is kept of a label set, and what ``GET`` gives; ``PUT`` takes it again."""
    return {
        "labels": [
            {
                "id": label.id,
                "name": label.name,
                "prompt": label.prompt,
                "aliases": list(label.aliases),
                "synset": label.synset,
            }
            for label in labels
        ]
    }


def hierarchy_document(trees: Sequence[Hierarchy]) -> dict[str, Any]:
    """What is kept of a tree or a forest: documents of ``hierarchy.schema.json``."""
    return {"trees": [json.loads(tree.to_json()) for tree in trees]}


class Library:
    """Labels and trees by id, made once for each content. Safe to use from several threads.

    Args:
        store: where the documents lie.
        metrics: counts hits and misses.
    """

    def __init__(self, store: Store, metrics: Metrics) -> None:
        self.store = store
        self._labels: _Cache[LabelSet] = _Cache("label-sets", store, metrics, _labels_of)
        self._trees: _Cache[tuple[Hierarchy, ...]] = _Cache(
            "hierarchies", store, metrics, _trees_of
        )

    def resolve(self, call: ClassifyCall, key_id: str) -> ClassifyCall:
        """The call with what its key keeps in place of the ids; blocks on the disk.

        Raises:
            UsageError: no id can look like this.
            StoredNotFoundError: nothing is kept under an id, for this key.
            StoreDamagedError: it is not what was written.
            StoreUnavailableError: the disk refuses.
        """
        labels = hierarchy = None
        if call.label_set_id is not None:
            labels = self._labels.get(call.label_set_id, key_id)
        if call.hierarchy_id is not None:
            hierarchy = self._trees.get(call.hierarchy_id, key_id)
        return call.resolved(labels=labels, hierarchy=hierarchy)


class _Cache(Generic[_Made]):
    def __init__(self, kind: Kind, store: Store, metrics: Metrics, make: Any) -> None:
        self._kind, self._store, self._metrics, self._make = kind, store, metrics, make
        self._name: Any = kind.replace("-", "_")
        self._kept: OrderedDict[_Place, tuple[_Signature, int, _Made]] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def get(self, id_: str, key_id: str) -> _Made:
        signature = self._store.signature(self._kind, id_, key_id)
        place = (key_id, id_)
        with self._lock:
            kept = self._kept.get(place)
            if kept is not None and kept[0] == signature:
                self._kept.move_to_end(place)
                self._metrics.looked_up(self._name, hit=True)
                return kept[2]
        self._metrics.looked_up(self._name, hit=False)
        made: _Made = self._make(self._store.get(self._kind, id_, key_id).document, id_)
        with self._lock:
            self._keep(place, signature, made)
        return made

    def _keep(self, place: _Place, signature: _Signature, made: _Made) -> None:
        # The signature is older than the content, if anything: then it is read once more.
        before = self._kept.pop(place, None)
        self._bytes -= 0 if before is None else before[1]
        size = signature[2]
        self._kept[place] = (signature, size, made)
        self._bytes += size
        while self._bytes > _CACHED_BYTES and len(self._kept) > 1:
            _, (_, gone, _) = self._kept.popitem(last=False)
            self._bytes -= gone
        self._metrics.cached(self._name, self._bytes)


def _labels_of(document: Mapping[str, Any], id_: str) -> LabelSet:
    try:
        return LabelSet(
            tuple(
                Label(
                    item["id"], item["name"], item["prompt"], tuple(item["aliases"]), item["synset"]
                )
                for item in document["labels"]
            )
        )
    except (KeyError, TypeError, RobustZSError) as error:
        raise _outdated("label set", id_) from error


def _trees_of(document: Mapping[str, Any], id_: str) -> tuple[Hierarchy, ...]:
    try:
        return tuple(
            Hierarchy.from_json(json.dumps(tree), source="hierarchy") for tree in document["trees"]
        )
    except (KeyError, TypeError, RobustZSError) as error:
        raise _outdated("hierarchy", id_) from error


def _outdated(what: str, id_: str) -> StoreDamagedError:
    return StoreDamagedError(
        f"the {what} {id_!r} is not of a form that this version reads",
        hint="put it again, or delete it",
    )
