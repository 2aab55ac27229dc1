"""Bundle and hierarchy together: the classifier, and the options it takes."""

from robustzs.classifier.classifier import Classifier
from robustzs.classifier.embedder import Embedder
from robustzs.classifier.inputs import ImageInput
from robustzs.classifier.options import Calibration, Options

__all__ = ["Calibration", "Classifier", "Embedder", "ImageInput", "Options"]
