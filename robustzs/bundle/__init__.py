"""Bundles: the one artifact between training, serving and calling.

Read with ``robustzs.bundle.store.Bundle``, written with ``robustzs.bundle.writer.BundleWriter``,
found by name with ``robustzs.bundle.registry``. The format: ``docs/bundle.md``.
"""
