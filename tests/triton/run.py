"""Run a command beside a service of the tiny bundle on a real Triton: `ROBUSTZS_TEST_URL` names it.

python -m tests.triton.run python -m pytest tests/serving/e2e
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.factories import make_bundle
from tests.serving.conftest import end_service, start_service
from tests.triton.server import shared_server


def main() -> int:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["ROBUSTZS_CACHE"] = str(folder / "cache")
        bundle = make_bundle(folder / "tiny")
        service = start_service(
            folder,
            bundle,
            ROBUSTZS_BACKEND="triton",
            ROBUSTZS_TRITON_URLS=shared_server(bundle).grpc,
            ROBUSTZS_THREADS="",
            ROBUSTZS_STORE_DIR=str(folder / "store"),
            ROBUSTZS_BODY_SECONDS="10",
            ROBUSTZS_HEADER_SECONDS="3",
        )
        try:
            service.wait_ready()
            environment = {**os.environ, "ROBUSTZS_TEST_URL": service.url}
            return subprocess.run(sys.argv[1:], env=environment, check=False).returncode
        finally:
            end_service(service)


if __name__ == "__main__":
    sys.exit(main())
