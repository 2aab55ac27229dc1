"""The towers of a bundle on a Triton Inference Server, behind ``base.Backend``.

```
target.py     where the servers are: URLs, deadline, TLS
contract.py   names, tensors and digests that repository and client agree on; no tritonclient
failures.py   from Triton's errors to ours
threads.py    where HTTP's clients live
transport.py  gRPC and HTTP, the only module that imports tritonclient
endpoint.py   one server: verified before its first answer, and again after every failure
backend.py    TritonBackend: several servers with failover
```

``robustzs_serving.triton`` writes the repository that such a server loads.
"""

from robustzs.backends.triton.backend import TritonBackend
from robustzs.backends.triton.endpoint import ServerReport, TowerStatistics
from robustzs.backends.triton.target import TritonTarget

__all__ = ["ServerReport", "TowerStatistics", "TritonBackend", "TritonTarget"]
