"""Built-in recipes: one YAML file each, named as ``robustzs train --recipe`` takes them."""
