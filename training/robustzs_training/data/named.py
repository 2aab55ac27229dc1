"""Datasets by name: torchvision's and Hugging Face's, each as an indexed source."""

from robustzs_training.data.hub_source import HuggingFaceSource, open_huggingface
from robustzs_training.data.torchvision_source import TorchvisionSource, open_torchvision

__all__ = ["HuggingFaceSource", "TorchvisionSource", "open_huggingface", "open_torchvision"]
