"""Two hundred clients at once, every tenth with poison: nobody else notices."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from robustzs import Classifier
from tests.factories import COLOURS
from tests.images.test_hostile import DAMAGED
from tests.serving.conftest import Service
from tests.serving.hostile.case import picture

CLIENTS = 200
EACH = 3
LABELS = ["jeep", "tabby", "poodle", "ambulance"]
POISON = [
    b"",
    b"no picture",
    picture()[:60],
    *(DAMAGED[name]() for name in sorted(DAMAGED)[:5]),
]


@pytest.mark.slow
def test_two_hundred_clients_a_tenth_of_them_poison(
    serve: Callable[..., Service], tiny_bundle: Path
) -> None:
    # Patient: on a busy machine two hundred clients in one process are slow ones.
    service = serve(
        ROBUSTZS_BODY_GRACE_SECONDS="60",
        ROBUSTZS_HEADER_SECONDS="60",
        ROBUSTZS_KEEP_ALIVE_SECONDS="60",
    )
    colours = sorted(COLOURS)
    classifier = Classifier.load(tiny_bundle, labels=LABELS)
    local = {
        colour: _known(classifier.classify(picture(colour)).model_dump(mode="json"))
        for colour in colours
    }
    poisoned = set(random.Random(0).sample(range(CLIENTS), CLIENTS // 10))

    async def one(number: int, client: httpx.AsyncClient) -> int:
        chance = random.Random(number)
        for _ in range(EACH):
            colour = chance.choice(colours)
            is_bad = number in poisoned
            content = chance.choice(POISON) if is_bad else picture(colour)
            answer = await client.post(
                "/v1/classify", files={"image": content}, data={"labels": ",".join(LABELS)}
            )
            if is_bad:
                assert answer.status_code in (413, 415, 422), answer.text
                assert set(answer.json()) == {"error"}
            else:
                assert answer.status_code == 200, answer.text
                _equal(_known(answer.json()["results"][0]), local[colour])
        return EACH

    async def all_of_them() -> list[int]:
        limits = httpx.Limits(max_connections=CLIENTS, max_keepalive_connections=CLIENTS)
        async with httpx.AsyncClient(base_url=service.url, timeout=120, limits=limits) as client:
            return await asyncio.gather(*(one(number, client) for number in range(CLIENTS)))

    before = service.metric("robustzs_batch_rows_count"), service.metric("robustzs_batch_rows_sum")
    assert sum(asyncio.run(all_of_them())) == CLIENTS * EACH
    batches = service.metric("robustzs_batch_rows_count") - before[0]
    rows = service.metric("robustzs_batch_rows_sum") - before[1]
    assert rows == (CLIENTS - len(poisoned)) * EACH
    assert rows / batches > 1.2, "they never shared a batch, so nothing was shown"


def _known(answer: dict[str, Any]) -> dict[str, Any]:
    """What must be equal: all but what a service and a file call the picture."""
    return {
        name: value for name, value in answer.items() if name not in ("image", "index", "status")
    }


def _equal(got: Any, wanted: Any) -> None:
    """Equal, and numbers as near as batches of other sizes allow (1e-6 in the features)."""
    if isinstance(wanted, float):
        assert abs(got - wanted) < 1e-4, (got, wanted)
    elif isinstance(wanted, dict):
        assert got.keys() == wanted.keys()
        for name, value in wanted.items():
            _equal(got[name], value)
    elif isinstance(wanted, list):
        assert len(got) == len(wanted)
        for one, other in zip(got, wanted, strict=True):
            _equal(one, other)
    else:
        assert got == wanted
