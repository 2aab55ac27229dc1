"""Ask a service. `robustzs_client` needs httpx, pydantic and tenacity, and no model.

In another terminal: robustzs serve
"""

import sys
from pathlib import Path

from robustzs_client import AnswerError, Client

PHOTOS = Path(__file__).parent / "photos"
URL = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:3000"

with Client(URL) as client:
    answer = client.classify(PHOTOS / "chelsea.png", hierarchy="wordnet")
    print(f"{answer.prediction.name} {answer.prediction.probability:.2f}, by {answer.model.name}")

    # Labels that are used again stay in the service, encoded once.
    client.put_label_set("example", ["cat", "cup of coffee", "rocket", "astronaut"])
    for row in client.classify_folder(PHOTOS, label_set="example"):
        name = Path(row.image).name
        if isinstance(row, AnswerError):  # one bad file never stops the others
            print(f"{name}: {row.error.message}")
        else:
            print(f"{name}: {row.flat_top1.name} {row.flat_top1.probability:.2f}")
    client.delete_label_set("example")
