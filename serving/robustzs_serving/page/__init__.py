"""The page at ``/``: static files, served as they lie in ``static/``."""

from robustzs_serving.page.routes import PAGE_HEADERS, page_routes

__all__ = ["PAGE_HEADERS", "page_routes"]
