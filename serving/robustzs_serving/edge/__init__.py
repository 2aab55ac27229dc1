"""What stands before every route: ids, limits, keys, rates, deadlines, headers. Pure ASGI.

```
Starlette(routes=..., middleware=middleware(settings), exception_handlers=exception_handlers())
request.state.request_id    # of the client if it is a harmless one, else ours
request.state.key_id        # name of the key's owner, "anonymous" without keys
request.state.caller        # whose rate it counts for: a key's owner, or an address
request.state.deadline      # time.monotonic() when the answer must be there
```
"""

from robustzs_serving.edge.scores import apply_scores
from robustzs_serving.edge.stack import errors_route, exception_handlers, middleware

__all__ = ["apply_scores", "errors_route", "exception_handlers", "middleware"]
