"""Writes ``docs/service-limits.md`` to standard output."""

from __future__ import annotations

import sys

from robustzs_serving.settings.table import render

sys.stdout.write(render())
