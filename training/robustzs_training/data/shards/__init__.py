"""WebDataset shards: which there are, how they come here, and what lies where in them."""
