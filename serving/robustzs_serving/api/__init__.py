"""The routes, what they answer, and the OpenAPI file that describes them.

```
schemas.py      what is answered; bodies.py: what is asked
operations.py   every operation with its parameters, bodies and errors: one table
openapi.py      the OpenAPI document, from that table
routes.py       the same table as Starlette's routes
endpoints/      what the routes do
```
"""

from robustzs_serving.api.routes import routes

__all__ = ["routes"]
