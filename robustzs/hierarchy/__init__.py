"""Trees over labels: built from files or from WordNet, walked from the root to an answer."""
