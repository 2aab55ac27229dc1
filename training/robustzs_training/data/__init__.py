"""Training data: sources, captions, order, and what may go wrong with them."""
