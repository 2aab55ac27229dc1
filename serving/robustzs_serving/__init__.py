"""Everything of robustzs that needs BentoML: the HTTP service."""
