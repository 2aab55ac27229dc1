"""What a deployer may set: every limit and every switch, read from ``ROBUSTZS_*`` at the start.

```
settings = ServiceSettings.from_env()             # ROBUSTZS_MAX_IMAGES=8 and so on
settings.limits.max_images
ServiceSettings(limits=Limits(max_images=8))      # in tests
```

``docs/service-limits.md`` is made from these classes (``python -m robustzs_serving.settings``).
"""

from robustzs_serving.settings.limits import Batching, Limits
from robustzs_serving.settings.scores import ScorePolicy
from robustzs_serving.settings.service import ServiceSettings
from robustzs_serving.settings.triton import TritonSettings

__all__ = ["Batching", "Limits", "ScorePolicy", "ServiceSettings", "TritonSettings"]
