"""Requests of mixed shapes, made once as bytes: what is measured is the service, not the client."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import httpx

from tests.images.samples import every_format
from tests.serving.hostile import pictures
from tests.serving.hostile.case import CLASSIFY, Case, b64, picture
from tests.serving.hostile.words import ROOT, tree

_URL = "http://localhost"
_COLOURS = ("jeep", "tabby", "poodle", "ambulance")


@dataclass(frozen=True)
class Ask:
    """One request as it goes over the wire.

    Attributes:
        kind: what it counts as.
        sent: head and body.
        expected: statuses that answer it.
        leaves_at: bytes after which the client leaves; ``None`` to hear the answer.
    """

    kind: str
    sent: bytes
    expected: frozenset[int]
    leaves_at: int | None = None


# Shares of all requests. Most are cheap, so that many fit into little time.
SHARES = {
    "about": 12,
    "refused": 22,
    "classify": 30,
    "several": 4,
    "embed": 8,
    "formats": 6,
    "trees": 5,
    "new labels": 2,
    "kept": 5,
    "poison": 4,
    "leaves": 2,
}


class Traffic:
    """An endless sequence of requests, the same for the same seed."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._numbers = itertools.count(seed * 10_000_000)
        self._fixed = _fixed()

    def __iter__(self) -> Iterator[Ask]:
        kinds, weights = list(SHARES), list(SHARES.values())
        while True:
            (kind,) = self._random.choices(kinds, weights)
            if kind in self._fixed:
                yield self._random.choice(self._fixed[kind])
            elif kind == "new labels":
                yield self._new_labels()
            elif kind == "kept":
                yield from self._kept()
            else:
                yield self._leaves()

    def _new_labels(self) -> Ask:
        labels = [f"jeep {next(self._numbers)}", "tabby"]
        return _json("new labels", "POST", CLASSIFY, {"image": _image("jeep"), "labels": labels})

    def _kept(self) -> Iterator[Ask]:
        """A label set's whole life, under one of a few ids; its own client may be overtaken."""
        place = f"/v1/label-sets/soak-{self._random.randrange(20)}"
        labels = [f"poodle {next(self._numbers) % 200}", "tabby"]
        question = {"image": _image("poodle"), "label_set": place.rpartition("/")[2]}
        yield _json("kept", "PUT", place, {"labels": labels}, 200, 201)
        yield _json("kept", "POST", CLASSIFY, question, 200, 404)
        yield _ask("kept", "GET", place, 200, 404)
        yield _ask("kept", "DELETE", place, 204, 404)

    def _leaves(self) -> Ask:
        ask = self._random.choice(self._fixed["classify"])
        at = self._random.choice([20, len(ask.sent) // 2, len(ask.sent) - 1, len(ask.sent)])
        return Ask("leaves", ask.sent, frozenset(), at)


@cache
def _fixed() -> dict[str, list[Ask]]:
    return {
        "about": list(_about()),
        "refused": list(_refused()),
        "classify": list(_classify()),
        "several": list(_several()),
        "embed": list(_embed()),
        "formats": list(_formats()),
        "trees": list(_trees()),
        "poison": list(_poison()),
    }


def _ask(kind: str, method: str, path: str, *expected: int, **more: object) -> Ask:
    request = httpx.Request(method, _URL + path, **more)  # type: ignore[arg-type]
    body = request.read()
    head = f"{method} {path} HTTP/1.1\r\n"
    head += "".join(f"{name}: {value}\r\n" for name, value in request.headers.items())
    return Ask(kind, head.encode("latin-1") + b"\r\n" + body, frozenset(expected))


def _json(kind: str, method: str, path: str, document: object, *expected: int) -> Ask:
    content = json.dumps(document).encode()
    headers = {"content-type": "application/json"}
    return _ask(kind, method, path, *(expected or (200,)), content=content, headers=headers)


def _of_case(kind: str, case: Case) -> Ask:
    body = case.body()
    assert isinstance(body, bytes)
    return _ask(kind, case.method, case.path, case.status, content=body, headers=list(case.headers))


def _image(colour: str) -> dict[str, str]:
    return {"b64": b64(colour)}


def _about() -> Iterator[Ask]:
    for path in ("/v1/models", "/livez", "/readyz", "/v1/label-sets", "/v1/hierarchies?limit=5"):
        yield _ask("about", "GET", path, 200)


def _refused() -> Iterator[Ask]:
    yield _ask("refused", "GET", "/nope", 404)
    yield _ask("refused", "GET", "/v1/label-sets/none", 404)
    yield _ask("refused", "PUT", "/v1/classify", 405)
    yield _ask("refused", "POST", CLASSIFY, 415, content=b"x", headers={"content-type": "a/b"})
    yield _json("refused", "POST", CLASSIFY, {"labels": ["a"]}, 400)
    yield _json("refused", "POST", CLASSIFY, {"image": _image("jeep"), "labels": [""]}, 422)
    yield _json("refused", "POST", CLASSIFY, {"image": _image("jeep"), "theta": 7}, 400)
    yield _json("refused", "POST", CLASSIFY, {"image": _image("jeep"), "x" * 999: 7}, 400)
    yield _json("refused", "POST", CLASSIFY, {"image": {"b64": "AAAA"}, "labels": ["jeep"]}, 415)


def _classify() -> Iterator[Ask]:
    for colour in _COLOURS:
        for labels in (["jeep", "tabby"], ["poodle", "tabby", "jeep"], list(_COLOURS)):
            document = {"image": _image(colour), "labels": labels}
            yield _json("classify", "POST", CLASSIFY, document)
            files, data = {"image": picture(colour)}, {"labels": ",".join(labels)}
            yield _ask("classify", "POST", CLASSIFY, 200, files=files, data=data)


def _several() -> Iterator[Ask]:
    for count in (2, 5, 17):
        images = [_image(_COLOURS[number % 4]) for number in range(count)]
        document = {"images": images, "labels": list(_COLOURS)}
        yield _json("several", "POST", CLASSIFY, document)
        document = {"images": [*images, {"b64": "AAAA"}], "labels": list(_COLOURS)}
        yield _json("several", "POST", CLASSIFY, document, 207)


def _embed() -> Iterator[Ask]:
    yield _json("embed", "POST", "/v1/embed", {"image": _image("tabby")})
    yield _json("embed", "POST", "/v1/embed", {"texts": ["a photo of a tabby", "jeep"]})
    document = {"text": "jeep", "image": _image("jeep"), "encoding": "base64"}
    yield _json("embed", "POST", "/v1/embed", document)


def _formats() -> Iterator[Ask]:
    for data in every_format().values():
        yield _ask("formats", "POST", CLASSIFY, 200, files={"image": data}, data={"labels": "a,b"})


def _trees() -> Iterator[Ask]:
    for document in (tree(ROOT), [tree(ROOT), {**tree(ROOT), "name": "other"}]):
        yield _json("trees", "POST", CLASSIFY, {"image": _image("jeep"), "hierarchy": document})
    question = {"image": _image("jeep"), "hierarchy": "wordnet", "theta": 0.3}
    yield _json("trees", "POST", CLASSIFY, question)


def _poison() -> Iterator[Ask]:
    """What is refused only by a decoder; the largest are left to the corpus."""
    for case in pictures.cases():
        if case.code is not None:
            body = case.body()
            if isinstance(body, bytes) and len(body) < 200_000:
                yield _of_case("poison", case)
