"""JSON, labels, templates, trees, ids and URLs that are wrong, huge or mean."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.serving.hostile.case import Case, asks, b64, sends

_PATHS = (
    *(
        "../../etc/passwd",
        "/etc/passwd",
        "..",
        "%2e%2e%2f",
        "a/b",
        "C:\\boot.ini",
        "\\\\host\\share",
    ),
    *("file:///etc/passwd", "http://127.0.0.1/", "~root", "$HOME", "`id`", "tree.yaml", "A", "a b"),
    *("wordnet\x00", "a\nb", "\u202egpj", "é", "\ud800", "a" * 65),
)
_TEMPLATES = (
    *("{0}", "{__class__}", "{0.__class__.__init__.__globals__}", "{!r}", "{:>999999999}", "{ }"),
    *("%s", "${7*7}", "#{7*7}", "{", "}", "}{", "no place", "{}\x00", "{}\r\n", "{}\u2028", "../x"),
    *("{}" + "a" * 511, "\ud800{}"),
)
_URLS = (
    *("http://example.org/a.png", "https://127.0.0.1/", "https://localhost/", "https://[::1]/"),
    *("https://0.0.0.0/", "https://127.1/", "https://2130706433/", "https://0x7f000001/"),
    *("https://0177.0.0.1/", "https://10.0.0.1/", "https://192.168.1.1/", "https://172.16.0.1/"),
    *("https://169.254.169.254/latest/meta-data/", "https://100.64.0.1/", "https://224.0.0.1/"),
    *("https://[::ffff:127.0.0.1]/", "https://[::ffff:7f00:1]/", "https://[64:ff9b::7f00:1]/"),
    *("https://[2002:7f00:1::]/", "https://[fe80::1%25lo]/", "https://[fd00::1]/", "https://[::]/"),
    *("https://8.8.8.8:22/", "https://8.8.8.8:3000/", "https://user:pass@8.8.8.8/", "https://"),
    *("file:///etc/passwd", "ftp://8.8.8.8/", "gopher://127.0.0.1/", "data:image/png;base64,AAAA"),
    *("//8.8.8.8/", "https:///etc/passwd", "https://8.8.8.8\\@127.0.0.1/", "https://8.8.8.8/ a"),
    *("https://[::1/", "https://127.0.0.1#@8.8.8.8/", "https://\u2460\u2461\u2466.0.0.1/"),
    *("https://\ud800/", "https://a\nb/", "javascript:alert(1)", "", " "),
)
_CONTROLS = ("a\nb", "a\x00b", "a\x1b[31mb", "a\u2028b", "\x7f", "a\x85b", "\ud800", "\udfff\ud800")


def tree(nodes: Any, **more: Any) -> dict[str, Any]:
    return {
        "format": "robustzs-hierarchy",
        "schema_version": 1,
        "name": "mine",
        "nodes": nodes,
        **more,
    }


def _node(name: str, parent: str | None = None, **more: Any) -> dict[str, Any]:
    return {"id": name, "parent": parent, **more}


ROOT = [_node("r"), _node("jeep", "r"), _node("tabby", "r")]


def _trees() -> Iterator[tuple[str, int, str | None, Any]]:
    chain = [_node("n0"), *(_node(f"n{i}", f"n{i - 1}") for i in range(1, 4000))]
    wrong, limit = "hierarchy-format", "hierarchy-limit"
    yield "that is its own parent", 422, "hierarchy-cycle", tree([_node("a", "a")])
    yield (
        *("with a circle", 422, "hierarchy-cycle"),
        tree([_node("r"), _node("a", "b"), _node("b", "c"), _node("c", "a")]),
    )
    yield "with two roots", 422, "hierarchy-multiple-roots", tree([_node("a"), _node("b")])
    yield "with a node twice", 422, wrong, tree([*ROOT, _node("jeep", "r")])
    yield "with 5000 times one node", 422, wrong, tree([_node("r")] * 5000)
    yield "with a parent that is not there", 422, wrong, tree([_node("r"), _node("a", "z")])
    yield "33 deep", 422, limit, tree(chain[:34])
    yield "4000 deep", 422, limit, tree(chain)
    yield (
        "of 5001 nodes",
        422,
        limit,
        tree([_node("r"), *(_node(f"n{i}", "r") for i in range(5000))]),
    )
    yield "of 400000 aliases", 422, limit, tree([_node("r", aliases=["a"] * 400_000)])
    yield "of 400000 wrong aliases", 422, limit, tree([_node("r", aliases=[1] * 400_000)])
    yield "of 5000 empty nodes", 422, wrong, tree([{}] * 5000)
    yield "of 100000 unknown keys", 422, limit, tree(ROOT, **{f"k{i}": 1 for i in range(100_000)})
    yield (
        *("of 50000 ranks", 422, limit),
        tree(ROOT, ranks=[{"name": f"x{i}", "nodes": ["jeep"]} for i in range(50_000)]),
    )
    yield (
        *("of 300000 nodes in a rank", 422, limit),
        tree(ROOT, ranks=[{"name": "x", "nodes": [1] * 300_000}]),
    )
    yield "of 100000 dropped edges", 422, limit, tree(ROOT, dropped_edges=[["a", "b"]] * 100_000)
    yield (
        *("of 100000 sources", 422, limit),
        tree(ROOT, provenance={f"k{i}": "v" for i in range(100_000)}),
    )
    yield "with 20 MB of provenance", 422, limit, tree(ROOT, provenance={"k": "v" * 20_000_000})
    yield "with a surrogate in its provenance", 422, wrong, tree(ROOT, provenance={"k": "\ud800"})
    yield "with a surrogate as name", 422, wrong, {**tree(ROOT), "name": "\ud800"}
    yield "with a line break in its name", 422, wrong, {**tree(ROOT), "name": "a\nb"}
    yield "with a name of a megabyte", 422, limit, {**tree(ROOT), "name": "a" * 1_000_000}
    yield "with an id of a megabyte", 422, limit, tree([_node("r" * 1_000_000)])
    yield "with a gloss of a megabyte", 422, limit, tree([_node("r", gloss="g" * 1_000_000)])
    yield "with an escape as id", 422, wrong, tree([_node("r\x1b[2J")])
    yield "with white space as id", 422, wrong, tree([_node("a b")])
    yield "with an empty id", 422, wrong, tree([_node("")])
    yield "of another digest", 422, "hierarchy-digest", tree(ROOT, digest="0" * 64)
    yield "with a digest of 1 MB", 422, wrong, tree(ROOT, digest="0" * 1_000_000)
    yield "of a schema to come", 422, wrong, {**tree(ROOT), "schema_version": 10**30}
    yield "of another format", 422, wrong, {**tree(ROOT), "format": "newick"}
    yield "whose nodes are null", 422, wrong, tree(None)
    yield "whose nodes are a text", 422, wrong, tree("abc")
    yield "whose nodes are an object", 422, wrong, tree({"a": "b"})
    yield "without nodes", 422, wrong, tree([])
    yield "that is empty", 422, wrong, {}
    yield "that is no list of trees", 422, wrong, []
    yield "that is a list in a list", 400, "usage", [[]]
    yield "that is a number", 400, "usage", 5
    yield "that is true", 400, "usage", True
    yield "six times", 422, limit, [tree(ROOT)] * 6
    yield "five times under one name", 422, "hierarchy", [tree(ROOT)] * 5
    yield (
        *("and another over other leaves", 422, "label-mismatch"),
        [tree(ROOT), {**tree([_node("r"), _node("x", "r")]), "name": "other"}],
    )


def _json() -> Iterator[Case]:
    image = f'"image":{{"b64":"{b64()}"}}'
    malformed = {
        "nothing": b"",
        "a brace": b"{",
        "a list": b"[]",
        "null": b"null",
        "a number": b"7",
        "a byte order mark": b"\xef\xbb\xbf{}",
        "utf-16": '{"labels": "a"}'.encode("utf-16"),
        "latin-1": b'{"labels":"\xe9"}',
        "NaN": f'{{{image},"theta":NaN}}'.encode(),
        "Infinity": f'{{{image},"theta":-Infinity}}'.encode(),
        "1e999": f'{{{image},"theta":1e999}}'.encode(),
        "a number of 5000 digits": f'{{{image},"top_k":{"9" * 5000}}}'.encode(),
        "a key twice": f'{{{image},"labels":["a"],"labels":["b"]}}'.encode(),
        "a key twice inside": f'{{{image},"labels":[{{"name":"a","name":"b"}}]}}'.encode(),
        "100000 brackets": b"[" * 100_000,
        "33 brackets": b'{"labels":' + b"[" * 33 + b"]" * 33 + b"}",
        "600000 values": b'{"labels":[' + b"0," * 600_000 + b"0]}",
        "single quotes": b"{'labels': 'a'}",
        "a comment": b'{/* no */ "labels": "a"}',
        "a trailing comma": b'{"labels": ["a",]}',
        "text behind it": b"{} {}",
        "a control character": b'{"labels": "a\nb"}',
        "an odd escape": b'{"labels": "\\x41"}',
    }
    for name, content in malformed.items():
        yield sends(f"json: {name}", 400, "body-malformed", content)


def _fields() -> Iterator[Case]:
    for value in ("x", 1, True, {}, [1], [], "0.5", "1e999", 10**31, -1, 2):
        if not (value == 1 and value is not True):
            yield asks(f"theta {value!r:.20}", 400, "usage", param="theta", theta=value)
        yield asks(f"target_accuracy {value!r:.20}", 400, "usage", target_accuracy=value)
    for name in ("top_k", "n_hyponyms"):
        for value in (0, -1, 1001, 1.5, "5", True, [], 10**31):
            yield asks(f"{name} {value!r:.20}", 400, "usage", param=name, **{name: value})
    for value in (0, -1, 1e-300, 1e300, "hot", False):
        yield asks(f"temperature {value!r}", 400, "usage", param="temperature", temperature=value)
    for name in ("strategy", "rule", "on_unknown", "on_ambiguous"):
        for value in ("", "nope", 5, [], {}, "\ud800"):
            yield asks(f"{name} {value!r}", 400, "usage", param=name, **{name: value})
    for value in ("--5", "+-5", "9" * 5000, "\u0661", "nope", "\ud800", "1e3"):
        yield asks(f"level {value!r:.20}", 422, "hierarchy-unknown-node", level=value)
    for value in (-1, "-1", "", " ", 1.5, True, [], {}):
        yield asks(f"level {value!r}", 400, "usage", param="level", level=value)
    for value in ("nope", "\ud800", "../r", "a" * 100_000):
        yield asks(f"root {value!r:.20}", 422, "hierarchy-unknown-node", root=value)
    for value in ("yes", [], {}, "nan"):
        yield asks(f"reject {value!r}", 400, "usage", param="reject", reject=value)
    for value in (5, [], {}, "", " ", "a" * 513):
        yield asks(f"model {value!r:.20}", 400, "usage", param="model", model=value)
    for name in ("constructor", "__proto__", "label", "a" * 100_000, "\ud800", "a\nb", ""):
        yield asks(f"a field {name!r:.20}", 400, "field-unknown", **{name: 1})
    yield asks("labels and a label set", 400, "usage", label_set="mine")
    yield asks("a theta and an accuracy", 400, "usage", theta=0.5, target_accuracy=0.5)
    for name, value, code in (
        ("none", ..., "field-missing"),
        ("null", None, "field-missing"),
        ("a text", "abc", "usage"),
        ("a list", [], "usage"),
        ("empty", {}, "usage"),
        ("of two kinds", {"b64": b64(), "url": "https://8.8.8.8/"}, "usage"),
        ("of bytes as numbers", {"b64": [1, 2]}, "usage"),
        ("of a path", {"path": "/etc/passwd"}, "field-unknown"),
        ("of a surrogate key", {"\ud800": "x"}, "field-unknown"),
        ("that is no base64", {"b64": "%%%"}, "usage"),
        ("in base64 with line breaks", {"b64": b64()[:60] + "\n" + b64()[60:]}, "usage"),
        ("as a data URI", {"b64": "data:image/png;base64," + b64()}, "usage"),
    ):
        yield asks(f"an image: {name}", 400, code, image=value)
    yield asks("33 images", 413, "too-many-images", image=..., images=[{"b64": b64()}] * 33)
    yield asks("no image in a list", 400, "field-missing", image=..., images=[])
    yield asks("an image and images", 400, "usage", images=[])


def _labels() -> Iterator[Case]:
    for value in (5, True, {}, [], "", "a\nb", [5], [[]], [None], [""], [" "], 'a"b,"c'):
        yield asks(f"labels {value!r}", 422, "label", labels=value)
    for value in _CONTROLS:
        yield asks(f"a label {value!r}", 422, "label", labels=[value, "jeep"])
        yield asks(f"a label id {value!r}", 422, "label", labels=[{"id": value, "name": "a"}, "b"])
    yield asks("an unknown key of a label", 400, "field-unknown", labels=[{"nome": "a"}])
    yield asks("a surrogate key of a label", 400, "field-unknown", labels=[{"\ud800": "a"}])
    yield asks("a label with no name", 422, "label", labels=[{"id": "a"}])
    yield asks("a label of numbers", 422, "label", labels=[{"name": 5}])
    yield asks("aliases that are a text", 422, "label", labels=[{"name": "a", "aliases": "b"}])
    yield asks(
        "65 aliases", 422, "label", labels=[{"name": "a", "aliases": [f"x{i}" for i in range(65)]}]
    )
    yield asks("a wrong synset", 422, "label", labels=[{"name": "a", "synset": "dog"}])
    yield asks("a verb", 422, "label", labels=[{"name": "a", "synset": "run.v.01"}])
    yield asks("a label twice", 422, "label-duplicate", labels=["a", "a"])
    yield asks("2000 times one label", 422, "label-duplicate", labels=["a"] * 2000)
    yield asks("2001 labels", 422, "label", labels=[f"l{i}" for i in range(2001)])
    yield asks("200000 labels in a text", 422, "label", labels="a," * 200_000)
    yield asks("a label of 513 characters", 422, "label", labels=["a" * 513, "b"])
    yield asks("a label of 10 MB", 422, "label", labels=["a" * 10_000_000])
    many = [f"zzq{i}" for i in range(2000)]
    yield asks(
        "2000 words unknown to WordNet", 422, "label-unknown", labels=many, hierarchy="wordnet"
    )
    yield asks(
        "words of several senses",
        422,
        "label-ambiguous",
        labels=["crane", "bank"],
        hierarchy="wordnet",
    )
    prompts = {"templates": [f"{i} {{}}" for i in range(30)]}
    yield asks("60000 prompts", 422, "label", labels=many, **prompts)
    for value in (
        "=1+1",
        "<script>",
        "' OR 1=1 --",
        "\u202egpj.exe",
        "\U0001f697" * 100,
        "a\u0301" * 200,
    ):
        yield asks(f"odd but right: label {value!r:.20}", 200, None, labels=["jeep", value])


def _templates() -> Iterator[Case]:
    for value in (*_TEMPLATES, 5, True, {}, [], [5], ["{}", None], ["{}", ""]):
        yield asks(f"template {value!r:.30}", 422, "template", param="templates", templates=value)
    yield asks("60000 templates", 422, "template", templates=["{}"] * 60_000)
    for value in ("{}" * 256, "{{}}", "{}{0}", "{}%s", "{} {__class__}"):
        yield asks(f"odd but right: template {value!r:.20}", 200, None, templates=value)


def _ids() -> Iterator[Case]:
    for value in _PATHS:
        yield asks(f"hierarchy {value!r:.20}", 400, "usage", param="hierarchy", hierarchy=value)
        yield asks(f"label_set {value!r:.20}", 400, "usage", labels=..., label_set=value)
        yield asks(f"model {value!r:.20}", 404, "model-not-found", model=value)
    for value in ("nope", "con", "-"):
        yield asks(f"hierarchy {value}", 404, "stored-not-found", hierarchy=value)
        yield asks(f"label_set {value}", 404, "stored-not-found", labels=..., label_set=value)


def _kept() -> Iterator[Case]:
    place, body = "/v1/label-sets/mine", {"labels": ["jeep"]}
    for value in (
        "abc",
        '"a',
        'W/"',
        "*, *",
        '"a" "b"',
        "\xff",
        '"a",' * 600,
        '"' + "a" * 3000 + '"',
    ):
        for header in ("if-match", "if-none-match"):
            yield sends(
                f"{header}: {value!r:.20}", 400, "usage", body, path=place, method="PUT",
                headers=((header, value),),
            )  # fmt: skip
    for value in ("*", '"0123"', 'W/"0123"'):
        yield sends(
            f"if-match {value!r} of nothing", 412, "precondition-failed", body, path=place,
            method="PUT", headers=(("if-match", value),),
        )  # fmt: skip
    for value in ("UPPER", "a" * 65, "a.b", "a%2fb", "%00", "%ed%a0%80", "%ff", "a%20b", "é"):
        for kind in ("label-sets", "hierarchies"):
            code = (404, "not-found") if value == "a%2fb" else (400, "usage")
            yield sends(
                f"PUT {kind}/{value:.9}", *code, body, path=f"/v1/{kind}/{value}", method="PUT"
            )
            yield Case(f"GET {kind}/{value:.9}", *code, method="GET", path=f"/v1/{kind}/{value}")
    for query in (
        "limit=0",
        "limit=-1",
        "limit=x",
        "limit=1e3",
        "limit=\u0661",
        "limit=99999999999",
    ):
        yield Case(f"a list, {query}", 400, "usage", method="GET", path=f"/v1/label-sets?{query}")
    for query in ("after=" + "a" * 65, "limit=1&limit=2", "a=b", "%00=1"):
        yield Case(
            f"a list, {query:.9}", 400, "usage", method="GET", path=f"/v1/hierarchies?{query}"
        )
    yield sends("PUT a text", 422, "label", "\n", path=place, method="PUT")
    yield sends("PUT an unknown key", 400, "field-unknown", {"x": 1}, path=place, method="PUT")
    yield Case("DELETE what is not there", 404, "stored-not-found", method="DELETE", path=place)


def _others() -> Iterator[Case]:
    embed, hf = "/v1/embed", "/v1/hf/zero-shot-image-classification"
    yield sends("embed nothing", 400, "field-missing", {}, path=embed)
    yield sends("embed 257 texts", 413, "field-too-large", {"texts": ["a"] * 257}, path=embed)
    for value in (*_CONTROLS, "", " ", "a" * 2001, 5):
        yield sends(f"embed {value!r:.20}", 422, "text", {"texts": [value]}, path=embed)
    yield sends("embed, encoding", 400, "usage", {"text": "a", "encoding": "pickle"}, path=embed)
    for value in (None, 5, [], {}):
        yield sends(f"hf inputs {value!r}", 400, "field-missing", {"inputs": value}, path=hf)
    labels = {"candidate_labels": ["a"]}
    yield sends("hf path", 400, "usage", {"inputs": "/etc/passwd!", "parameters": labels}, path=hf)
    yield sends(
        "hf option", 400, "field-unknown",
        {"inputs": b64(), "parameters": {**labels, "function_to_apply": "x"}}, path=hf,
    )  # fmt: skip
    yield sends(
        "hf template", 422, "template",
        {"inputs": b64(), "parameters": {**labels, "hypothesis_template": "{0}"}}, path=hf,
    )  # fmt: skip


def cases() -> Iterator[Case]:
    """All of them."""
    yield from _json()
    yield from _fields()
    yield from _labels()
    yield from _templates()
    yield from _ids()
    for name, status, code, document in _trees():
        yield asks(f"a tree {name}", status, code, hierarchy=document, labels=...)
    for url in _URLS:
        yield asks(f"url {url!r:.40}", 422, "image-url-refused", image={"url": url})
    yield asks(
        "a url of 3000 characters", 400, "usage", image={"url": "https://8.8.8.8/" + "a" * 3000}
    )
    yield from _kept()
    yield from _others()
