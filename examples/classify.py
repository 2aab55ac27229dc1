"""From an image to an answer: the path down WordNet, and the node to stop at."""

from pathlib import Path

from robustzs import Classifier

PHOTO = Path(__file__).parent / "photos" / "chelsea.png"

classifier = Classifier.load("robustzs-lite", hierarchy="wordnet")
answer = classifier.classify(PHOTO)
for node in answer.path:
    mark = ">" if node.id == answer.prediction.id else " "
    print(f"{mark} {node.depth:2}  {node.probability:.3f}  {node.name}")
