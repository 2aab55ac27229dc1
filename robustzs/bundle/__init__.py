"""Bundles: the one artifact between training, serving and calling."""
