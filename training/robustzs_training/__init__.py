"""Everything of robustzs that needs torch: models, export, and the making of robustzs-lite."""
