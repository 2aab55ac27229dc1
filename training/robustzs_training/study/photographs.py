"""Captions of the held-out photographs, from WordNet: what the caption-guided attack reads."""

from __future__ import annotations

import csv
import json
from pathlib import Path

from robustzs.errors import DataError, DatasetNotFoundError
from robustzs.hierarchy.noun_index import NounIndex
from robustzs.labels import Label
from robustzs_training.captions.gloss import gloss_caption
from robustzs_training.evaluation.state import write_text


def caption_photographs(table: Path, output: Path) -> Path:
    """Write a caption for every line of ``path,label`` whose label is a synset.

    The captions are true of the kind, not of the picture: nobody has described these photographs.

    Args:
        table: As ``python -m benchmarks.heldout_photos.export`` writes it.
        output: A JSONL table, which is replaced.

    Raises:
        DatasetNotFoundError: There is no table.
        DataError: It has no columns ``path`` and ``label``.
        UnknownLabelError: A label is no synset.
    """
    if not table.is_file():
        raise DatasetNotFoundError(
            f"there is no table of photographs {table}",
            hint="`python -m benchmarks.heldout_photos.export --output DIR` writes DIR/data.csv",
        )
    index = NounIndex.load()
    lines = []
    with table.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        if not {"path", "label"} <= set(reader.fieldnames or ()):
            raise DataError(f"{table} has no columns path and label", hint="see evaluation-data.md")
        for row in reader:
            synset = index.get(row["label"])
            name = synset.lemmas[0].replace("_", " ")
            label = Label(id=synset.wnid, name=name, prompt=name, synset=synset.wnid)
            lines.append({"key": row["path"], "caption": gloss_caption(label, index)})
    write_text(output, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
    return output
