"""The life cycle of the application."""

from __future__ import annotations

import asyncio
from pathlib import Path

import psutil
import pytest
from robustzs_serving.app import create_app
from robustzs_serving.engine import Engine
from robustzs_serving.settings import ServiceSettings

from robustzs.errors import BackendError


class _Breaks(Engine):
    """Fails at the end of its start."""

    async def start(self) -> None:
        await super().start()
        raise BackendError("it broke")


def test_a_start_that_fails_leaves_no_decoder_behind(tiny_bundle: Path, tmp_path: Path) -> None:
    settings = ServiceSettings(model=str(tiny_bundle), store_dir=tmp_path, decoders=2, threads=1)
    before = {child.pid for child in psutil.Process().children()}

    async def main() -> None:
        app = create_app(settings, engine=_Breaks(settings))
        with pytest.raises(BackendError):
            async with app.router.lifespan_context(app):
                pytest.fail("it started")

    asyncio.run(main())
    assert {child.pid for child in psutil.Process().children()} <= before
