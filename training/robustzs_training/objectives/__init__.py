"""Adversarial training objectives, one file each, on one protocol (``base.py``)."""

from robustzs_training.objectives.agft import Agft
from robustzs_training.objectives.base import Batch, LossTerms, Objective
from robustzs_training.objectives.fare import Fare
from robustzs_training.objectives.fare_kl import FareKl
from robustzs_training.objectives.hierarchical import Hierarchical, HierarchicalOptions
from robustzs_training.objectives.pmg_aft import PmgAft
from robustzs_training.objectives.qt_aft import QtAft
from robustzs_training.objectives.qt_aft_hierarchical import QtAftHierarchical
from robustzs_training.objectives.sim_clip import SimClip
from robustzs_training.objectives.tecoa import Tecoa
from robustzs_training.objectives.tga_zsr import TgaZsr

__all__ = [
    "Agft",
    "Batch",
    "Fare",
    "FareKl",
    "Hierarchical",
    "HierarchicalOptions",
    "LossTerms",
    "Objective",
    "PmgAft",
    "QtAft",
    "QtAftHierarchical",
    "SimClip",
    "Tecoa",
    "TgaZsr",
]
