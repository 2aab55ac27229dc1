"""A set of labels to choose from.

```
LabelSet.from_names(["cat", "dog"])       names
LabelSet.from_file("labels.txt")          one label per line; or .csv, .tsv, .json
LabelSet.parse("cat,dog")                 what a command line gives: a file, or names
LabelSet.imagenet1k()                     the 1000 classes of ImageNet-1k, ids are wnids
```
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from robustzs.errors import DuplicateLabelError, LabelError, LabelFileError
from robustzs.files import is_closed
from robustzs.labels.entries import Entry, build_labels, imagenet_table
from robustzs.labels.label import Label
from robustzs.labels.readers import parse_table, read_labels

_FILE_SUFFIXES = (".txt", ".csv", ".tsv", ".json")


@dataclass(frozen=True)
class LabelSet:
    """Labels in a fixed order, with ids that occur once.

    Building it from ``Label`` objects checks only the ids; the ``from_*`` makers check everything
    that a person may have got wrong and report all of it at once.

    Args:
        labels: The labels; at least one.

    Raises:
        LabelError: There is no label.
        DuplicateLabelError: An id occurs twice.
    """

    labels: tuple[Label, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "labels", tuple(self.labels))
        if not self.labels:
            raise LabelError("a label set needs at least one label")
        if len(self._positions) != len(self.labels):
            twice = [id_ for id_, count in Counter(self.ids).items() if count > 1]
            raise DuplicateLabelError(f"the id {twice[0]!r} occurs twice in the label set")

    @classmethod
    def from_names(cls, names: Iterable[str]) -> LabelSet:
        """Make labels from names; a wnid or a sense such as ``crane.n.05`` is taken as a synset.

        Raises:
            LabelError: A name is empty, too long, or contains control characters.
            DuplicateLabelError: A name occurs twice, be it in another case.
        """
        if isinstance(names, str):
            raise LabelError(
                f"{names!r} is one text, not a list of names", hint=f"write [{names!r}]"
            )
        return cls._from_list(list(names), "labels")

    @classmethod
    def from_file(cls, path: str | Path) -> LabelSet:
        """Read a file; its suffix says what it is (``.csv``, ``.tsv``, ``.json``, else lines).

        Raises:
            LabelFileError: Not readable, or with wrong entries; all of them are listed.
            DuplicateLabelError: Two labels share an id, a name, a synset or a prompt.
        """
        return cls(read_labels(Path(path)))

    @classmethod
    def from_csv(cls, text: str, *, delimiter: str = ",") -> LabelSet:
        """Read a table held in memory, with a header as in ``name,synset,prompt,aliases``.

        Raises:
            LabelFileError: As in ``from_file``.
            DuplicateLabelError: As in ``from_file``.
        """
        entries, problems = parse_table(text, delimiter=delimiter)
        return cls(build_labels(entries, source="CSV", problems=problems, error=LabelFileError))

    @classmethod
    def parse(cls, spec: str) -> LabelSet:
        """Read what stands after ``--labels``: the name of an existing file, else names.

        Names are separated by commas. One that contains a comma is quoted as in CSV
        (``'"salt, sea",pepper'``); a name that is also a file's is quoted, too (``'"cats"'``).

        Raises:
            LabelError: As in ``from_names`` and ``from_file``.
        """
        if _is_file(spec):
            return cls.from_file(spec)
        stripped = spec.strip()
        if "," not in stripped and stripped.lower().endswith(_FILE_SUFFIXES):
            raise LabelFileError(f"label file {spec} does not exist", hint="check the path")
        if "\n" in stripped or "\r" in stripped:
            raise LabelError(
                "a list of labels stands on one line", hint="put one label per line into a file"
            )
        try:
            rows = list(csv.reader([stripped], skipinitialspace=True, strict=True))
        except csv.Error as error:
            raise LabelError(
                f"cannot read the labels {spec[:80]!r}: {error}",
                hint='quote a name that contains a comma: "salt, sea",pepper',
            ) from error
        names = rows[0] if rows else []
        if names and not names[-1].strip():
            names.pop()  # a trailing comma
        return cls._from_list(names, "labels")

    @classmethod
    def imagenet1k(cls) -> LabelSet:
        """The 1000 classes of ImageNet-1k in the order of their class indices."""
        return cls(tuple(imagenet_table().values()))

    @classmethod
    def _from_list(cls, names: Sequence[str], source: str) -> LabelSet:
        entries = [Entry(f"label {number}", name) for number, name in enumerate(names, start=1)]
        return cls(build_labels(entries, source=source))

    def __len__(self) -> int:
        return len(self.labels)

    def __iter__(self) -> Iterator[Label]:
        return iter(self.labels)

    def __getitem__(self, index: int) -> Label:
        return self.labels[index]

    @cached_property
    def ids(self) -> tuple[str, ...]:
        """The ids, in order."""
        return tuple(label.id for label in self.labels)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The names, in order."""
        return tuple(label.name for label in self.labels)

    @cached_property
    def prompts(self) -> tuple[str, ...]:
        """The prompts, in order."""
        return tuple(label.prompt for label in self.labels)

    def index(self, label_id: str) -> int:
        """Position of the label with that id.

        Raises:
            LabelError: No label has it.
        """
        try:
            return self._positions[label_id]
        except KeyError:
            raise LabelError(f"no label has the id {label_id!r}", hint="see LabelSet.ids") from None

    @cached_property
    def _positions(self) -> dict[str, int]:
        return {label.id: position for position, label in enumerate(self.labels)}

    @cached_property
    def digest(self) -> str:
        """sha256 of the canonical JSON: the labels in order, keys sorted, UTF-8, no white space."""
        records = [
            {
                "aliases": list(label.aliases),
                "id": label.id,
                "name": label.name,
                "prompt": label.prompt,
                "synset": label.synset,
            }
            for label in self.labels
        ]
        text = json.dumps(records, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode("utf-8")).hexdigest()


def _is_file(spec: str) -> bool:
    """Whether the text names a file, or a path to something that then is refused as none.

    A bare name that is also a folder's (``cat``) stays a name.
    """
    if is_closed(spec):
        return True  # reading it says why not
    try:
        path = Path(spec)
        return path.is_file() or (os.sep in spec and path.exists())
    except (OSError, ValueError):  # too long, or with a NUL, for a file name
        return False
