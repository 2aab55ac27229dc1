"""Published JSON Schemas, generated from the models by ``python -m robustzs.schemas``."""
