"""Ask a service. `robustzs_client` needs httpx and pydantic, and no model.

In another terminal: robustzs serve
"""

import sys
from pathlib import Path

from robustzs_client import Client

PHOTO = Path(__file__).parent / "photos" / "chelsea.png"
URL = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:3000"

with Client(URL) as client:
    answer = client.classify(PHOTO, hierarchy="wordnet")
print(f"{answer.prediction.name} {answer.prediction.probability:.2f}, by {answer.model.name}")
