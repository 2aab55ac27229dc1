"""From torch to a bundle, and back to the libraries that torch users know."""
