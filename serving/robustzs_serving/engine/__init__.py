"""The engine behind every route: images and texts in, answers and features out.

```
engine.py        Engine: puts the parts together, starts and stops them
classifiers.py   Classifiers: made once per choice of labels, tree and options; LRU by bytes
waiting.py       waiting for two things, up to a deadline, within a span
lanes.py         TextLanes: threads in which texts are encoded
weight.py        prompts that a classifier needs, bytes that it holds
rows.py          what comes back: answers, features, error rows
```

The event loop only waits: images are decoded in processes, the model runs in one thread,
classifiers are made in two lanes of threads (small ones never wait behind a tree of 25,000 nouns),
answers are scored in others.
"""

from robustzs_serving.engine.classifiers import Classifiers
from robustzs_serving.engine.engine import Engine
from robustzs_serving.engine.rows import Description, Embedded, ErrorRow

__all__ = ["Classifiers", "Description", "Embedded", "Engine", "ErrorRow"]
