"""Captions for training images: from glosses, a local model or an endpoint; resumable tables."""
