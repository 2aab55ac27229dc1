"""Captions of images in class folders, from WordNet and without looking at them."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice

from robustzs.errors import CaptionError
from robustzs.hierarchy.noun_index import WNID_PATTERN, NounIndex
from robustzs.labels.label import Label
from robustzs.labels.label_set import LabelSet
from robustzs_training.captions.gloss import gloss_caption
from robustzs_training.captions.journal import Outcome
from robustzs_training.data.resolve import labels_of_names, labels_of_wnids, resolve_classes

_PER_GROUP = 5000


@dataclass(frozen=True, kw_only=True)
class GlossCaptioner:
    """Says of an image what its class is; make one with :meth:`over`.

    Attributes:
        labels: By the name of their folder.
        properties: Whether kind and looks are told beside the name.
        warnings: What a person should be told of the classes.
    """

    labels: dict[str, Label]
    properties: bool = True
    warnings: tuple[str, ...] = ()

    @classmethod
    def over(cls, keys: Iterable[str], *, properties: bool = True) -> GlossCaptioner:
        """For images in folders that are named by wnids or class names.

        Raises:
            CaptionError: No image lies in a class folder.
            DataError: Folder names that cannot be labels.
        """
        folders = sorted({key.split("/", 1)[0] for key in keys if "/" in key})
        if not folders:
            raise CaptionError(
                "no image lies in a class folder",
                hint="sort the images into folders named by class or wnid, or use --source "
                "transformers or openai, which look at the images",
            )
        wnids = [name for name in folders if WNID_PATTERN.fullmatch(name)]
        names = [name for name in folders if name not in set(wnids)]
        labels = [*(labels_of_wnids(wnids)[0] if wnids else ())]
        labels += labels_of_names(names, "the folder") if names else ()
        resolved = resolve_classes(LabelSet(tuple(labels)))
        lost = [r.label.name for r in resolved.resolutions if r.synset is None]
        warnings = list(resolved.warnings)
        if lost and properties:
            shown = ", ".join(lost[:10]) + (", ..." if len(lost) > 10 else "")
            warnings.append(f"{len(lost)} classes are not in WordNet, only their names: {shown}")
        return cls(
            labels=dict(zip([*wnids, *names], resolved.labels, strict=True)),
            properties=properties,
            warnings=tuple(warnings),
        )

    @property
    def settings(self) -> dict[str, str]:
        """As in the table."""
        prompt = "names and properties" if self.properties else "names"
        return {"source": "gloss", "prompt": prompt, "model": "WordNet 3.0"}

    @cached_property
    def _by_folder(self) -> dict[str, str]:
        index = NounIndex.load()
        return {
            name: gloss_caption(label, index, properties=self.properties)
            for name, label in self.labels.items()
        }

    def caption(self, keys: Iterable[str]) -> Generator[Sequence[Outcome], None, None]:
        """Outcomes in the order of the keys."""
        left = iter(keys)
        while group := list(islice(left, _PER_GROUP)):
            yield [self._one(key) for key in group]

    def _one(self, key: str) -> Outcome:
        folder, slash, _ = key.partition("/")
        caption = self._by_folder.get(folder) if slash else None
        if caption is None:
            return Outcome(key=key, error="no-class", message="it lies in no class folder")
        return Outcome(key=key, caption=caption)
