"""Images: from bytes that nobody vouches for to the pixels that a model takes."""
