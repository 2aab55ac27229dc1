from __future__ import annotations

import importlib.util

# Everything here needs the extra `train`.
collect_ignore_glob = [] if importlib.util.find_spec("torch") else ["test_*.py", "*/test_*.py"]
