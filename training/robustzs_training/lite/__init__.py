"""The recipe of robustzs-lite: two published towers, aligned without a single ImageNet picture.

``python -m robustzs_training.lite.build --output DIR`` runs all of it; see ``build.py``.
"""
