"""A model repository for Triton Inference Server, written from a bundle.

```
config.py      config.pbtxt of each model, in Triton's own protobuf
scale.py       the ONNX model that divides bytes by 255
repository.py  write_repository: all of it, put into place at once
```

What client and server agree on is in ``robustzs.backends.triton.contract``. Nothing here needs
BentoML.
"""

from robustzs_serving.triton.config import ServerOptions
from robustzs_serving.triton.repository import write_repository

__all__ = ["ServerOptions", "write_repository"]
