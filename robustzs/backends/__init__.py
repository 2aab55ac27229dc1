"""Inference engines behind one boundary: ``base.Backend``."""
