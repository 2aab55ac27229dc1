"""Your own labels in your own tree; many images, and a bad one does not stop the others."""

from pathlib import Path

from robustzs import Classifier
from robustzs.answer import AnswerError

HERE = Path(__file__).parent
PHOTOS = sorted((HERE / "photos").glob("*.*g"))

with Classifier.load(
    "robustzs-lite", labels=HERE / "things.csv", hierarchy=HERE / "things.yaml", theta=0.8
) as classifier:
    for answer in classifier.classify_many([*PHOTOS, HERE / "things.csv"]):
        name = Path(answer.image).name
        if isinstance(answer, AnswerError):
            print(f"{name}: {answer.error.code}")
        else:
            found = answer.prediction
            print(f"{name}: {found.name} {found.probability:.2f} ({answer.stop.reason})")
