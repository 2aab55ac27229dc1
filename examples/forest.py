"""Two trees over the same labels, asked at once: what it is, and where it belongs."""

from pathlib import Path

from robustzs import Classifier

HERE = Path(__file__).parent

classifier = Classifier.load(
    "robustzs-lite",
    labels=HERE / "things.csv",
    hierarchy=[HERE / "things.yaml", HERE / "places.yaml"],
    level=1,  # the depth at which both trees name a group
)
answer = classifier.classify(HERE / "photos" / "rocket.jpg")
for tree in (answer, *answer.forest):
    print(f"{tree.hierarchy.name}: {tree.prediction.name} {tree.prediction.probability:.2f}")
