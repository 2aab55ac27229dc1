"""A card for people: one HTML file that asks nothing of the network, and plots beside it.

::

    report = write_report(card, Path("out"), examples=examples, curves=curves)

``out/`` then holds ``report.html``, in which everything is embedded, and the plots as PNG files.
Names and labels come from anywhere: the template escapes all of them, control characters and
direction overrides are shown as escapes, and the page's own policy forbids scripts and requests.
"""

from robustzs_training.evaluation.report.examples import Example, PathStep
from robustzs_training.evaluation.report.page import REPORT_NAME, write_report
from robustzs_training.evaluation.report.plots import Curve

__all__ = ["REPORT_NAME", "Curve", "Example", "PathStep", "write_report"]
