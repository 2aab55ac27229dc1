"""What importing ``robustzs_client`` costs, next to importing httpx and pydantic.

    python -m benchmarks.sdk_import

Fresh processes, one kind after the other in turn; each tells the processor time of its import
alone, which other work on the machine changes little. Medians, and the ratio of medians.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys

# `import pydantic` alone reads next to nothing; whoever has a model needs these two names.
PAIRS = (
    ("import httpx, pydantic", "import robustzs_client"),
    (
        "import httpx; from pydantic import BaseModel, Field",
        "from robustzs_client import Client",
    ),
    (
        "import httpx; from pydantic import BaseModel, Field",
        "from robustzs_client import AsyncClient",
    ),
)
LIMIT = 1.15

_TIMED = "import time; start = time.process_time(); {}; print(time.process_time() - start)"


def seconds(code: str) -> float:
    """Processor seconds of ``code`` in a fresh process."""
    command = [sys.executable, "-c", _TIMED.format(code)]
    return float(subprocess.run(command, capture_output=True, check=True, text=True).stdout)


def measure(codes: list[str], rounds: int) -> dict[str, float]:
    """Median seconds of each, measured in turn."""
    for code in codes:
        seconds(code)  # bytecode and file cache
    found: dict[str, list[float]] = {code: [] for code in codes}
    for _ in range(rounds):
        for code in codes:
            found[code].append(seconds(code))
    return {code: statistics.median(values) for code, values in found.items()}


def main() -> None:
    """Print the table; exit 1 above the limit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=41)
    rounds = parser.parse_args().rounds
    medians = measure([code for pair in PAIRS for code in pair], rounds)
    ratios = [medians[ours] / medians[base] for base, ours in PAIRS]
    for (base, ours), ratio in zip(PAIRS, ratios, strict=True):
        print(f"{1000 * medians[base]:7.1f} ms  {base}")
        print(f"{1000 * medians[ours]:7.1f} ms  {ours}   ratio {ratio:.3f}")
    if max(ratios) > LIMIT:
        sys.exit(f"importing robustzs_client costs more than {LIMIT} times httpx and pydantic")


if __name__ == "__main__":
    main()
