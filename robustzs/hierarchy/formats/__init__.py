"""Reading hierarchies from files.

| format | shape | recognised by |
|---|---|---|
| `json` | what `Hierarchy.to_json` writes; the published schema | `.json` with `"format": "robustzs-hierarchy"` |
| `nested` | `animal: {dog: [labrador, poodle], cat: []}`, attributes under `_` | `.yaml`, `.yml`, other `.json` |
| `chils` | `{"superclass": ["sub", ...]}` | `.json`: two or more keys, each with a list of texts |
| `edges` | `child,parent[,name][,prompt][,synset][,gloss][,aliases]` | `.csv`, `.tsv` with these columns |
| `wide` | one column per rank, last is the leaf | other `.csv`, `.tsv` |
| `breeds` | folder of `class_hierarchy.txt`, `node_names.txt`, `dataset_class_info.json` | a folder |
| `is-a` | `parent child` wnids per line | other files that start with two wnids |
"""  # noqa: E501

from robustzs.hierarchy.formats.read import FORMATS, read_hierarchy, sniff_format

__all__ = ["FORMATS", "read_hierarchy", "sniff_format"]
