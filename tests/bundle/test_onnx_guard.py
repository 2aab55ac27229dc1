"""The guard sees every place of an ONNX file that can name a file or an operator."""

import random
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from robustzs.bundle.onnx_guard import TensorInfo, check_onnx
from robustzs.errors import (
    BundleFileMissingError,
    OnnxExternalDataError,
    OnnxGraphError,
    OnnxMalformedError,
    OnnxOperatorDomainError,
)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    return tmp_path_factory.mktemp("onnx") / "model.onnx"


def check(scratch, model, files=()):
    data = model if isinstance(model, bytes) else model.SerializeToString()
    scratch.write_bytes(data)
    return check_onnx(scratch, dict(files))


def tensor(name="w"):
    return numpy_helper.from_array(np.arange(6, dtype=np.float32), name)


def external(location="weights.bin", offset=0, length=24, name="w"):
    value = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[6])
    value.data_location = TensorProto.EXTERNAL
    for key, text in (("location", location), ("offset", offset), ("length", length)):
        if text is not None:
            value.external_data.add(key=key, value=str(text))
    return value


def graph(nodes=None, initializers=(), name="g"):
    nodes = [helper.make_node("Identity", ["x"], ["y"])] if nodes is None else nodes
    sides = [
        helper.make_tensor_value_info(side, TensorProto.FLOAT, ["batch", 3, None])
        for side in ("x", "y")
    ]
    return helper.make_graph(nodes, name, sides[:1], sides[1:], list(initializers))


def model(*, functions=(), opset=18, **parts):
    return helper.make_model(
        graph(**parts), functions=list(functions), opset_imports=[helper.make_opsetid("", opset)]
    )


def test_a_plain_model_is_summed_up(scratch):
    summary = check(scratch, model(initializers=[tensor()]))
    assert summary.opset == {"": 18}
    assert summary.domains == {""}
    assert summary.external_files == set()
    assert summary.n_nodes == 1
    assert summary.inputs == [TensorInfo("x", TensorProto.FLOAT, ("batch", 3, None))]
    assert summary.outputs == [TensorInfo("y", TensorProto.FLOAT, ("batch", 3, None))]


@pytest.mark.parametrize("domain", ["", "ai.onnx", "ai.onnx.ml", "com.microsoft"])
def test_built_in_domains_are_allowed(scratch, domain):
    node = helper.make_node("Gelu", ["x"], ["y"], domain=domain)
    assert check(scratch, model(nodes=[node])).domains == {domain}


@pytest.mark.parametrize(
    "domain",
    ["evil", "ai.onnx.contrib", "com.microsoft.extensions", "COM.MICROSOFT", "org.pytorch.aten"],
)
def test_other_domains_are_refused(scratch, domain):
    node = helper.make_node("Evil", ["x"], ["y"], domain=domain)
    with pytest.raises(OnnxOperatorDomainError, match=f"{domain}::Evil"):
        check(scratch, model(nodes=[node]))


def test_operators_that_load_code_are_refused_in_an_allowed_domain(scratch):
    node = helper.make_node("EPContext", ["x"], ["y"], domain="com.microsoft", embed_mode=0)
    with pytest.raises(OnnxOperatorDomainError, match="EPContext"):
        check(scratch, model(nodes=[node]))


def local_function(domain, body_domain):
    body = [helper.make_node("Neg", ["a"], ["b"], domain=body_domain)]
    return helper.make_function(domain, "Twice", ["a"], ["b"], body, [helper.make_opsetid("", 18)])


def test_functions_of_the_file_itself_may_have_a_domain_of_their_own(scratch):
    call = helper.make_node("Twice", ["x"], ["y"], domain="mine")
    check(scratch, model(nodes=[call], functions=[local_function("mine", "")]))
    with pytest.raises(OnnxOperatorDomainError, match="evil::Neg"):
        check(scratch, model(nodes=[call], functions=[local_function("mine", "evil")]))
    other = helper.make_node("Thrice", ["x"], ["y"], domain="mine")
    with pytest.raises(OnnxOperatorDomainError, match="mine::Thrice"):
        check(scratch, model(nodes=[other], functions=[local_function("mine", "")]))


def test_recorded_external_data_is_allowed_and_onnx_loads_it(scratch):
    (scratch.parent / "weights.bin").write_bytes(np.arange(6, dtype=np.float32).tobytes())
    summary = check(scratch, model(initializers=[external()]), {"weights.bin": 24})
    assert summary.external_files == {"weights.bin"}
    loaded = onnx.load(scratch)
    np.testing.assert_array_equal(
        numpy_helper.to_array(loaded.graph.initializer[0]), np.arange(6, dtype=np.float32)
    )


def test_external_data_is_relative_to_the_folder_of_the_graph(scratch):
    scratch.write_bytes(model(initializers=[external("w.bin")]).SerializeToString())
    files = {"onnx/model.onnx": 1, "onnx/w.bin": 24}
    assert check_onnx(scratch, files, name="onnx/model.onnx").external_files == {"onnx/w.bin"}
    with pytest.raises(OnnxExternalDataError):
        check_onnx(scratch, {"w.bin": 24}, name="onnx/model.onnx")


@pytest.mark.parametrize(
    "location",
    [
        "../weights.bin",
        "/etc/passwd",
        "a/../../weights.bin",
        "./weights.bin",
        "C:\\weights.bin",
        "..\\weights.bin",
        "",
        "other.bin",
        "weights.bin/",
        "*/_ORT_MEM_ADDR_/*",
        "file:///etc/passwd",
        "weights.bin\0",
    ],
)
def test_external_data_elsewhere_is_refused(scratch, location):
    with pytest.raises(OnnxExternalDataError):
        check(scratch, model(initializers=[external(location)]), {"weights.bin": 24})


@pytest.mark.parametrize(
    ("offset", "length"),
    [(0, 25), (24, 1), (25, 0), (-1, 4), ("x", 4), (0, "0x4"), (0, "9" * 40), ("0" * 30 + "1", 24)],
)
def test_external_data_beyond_its_file_is_refused(scratch, offset, length):
    with pytest.raises(OnnxExternalDataError):
        check(
            scratch,
            model(initializers=[external("weights.bin", offset, length)]),
            {"weights.bin": 24},
        )


def test_a_location_counts_even_when_the_tensor_says_that_it_is_not_external(scratch):
    value = external("../x")
    value.data_location = TensorProto.DEFAULT
    with pytest.raises(OnnxExternalDataError):
        check(scratch, model(initializers=[value]))


def test_two_locations_are_refused(scratch):
    value = external()
    value.external_data.add(key="location", value="../x")
    with pytest.raises(OnnxExternalDataError, match="twice"):
        check(scratch, model(initializers=[value]), {"weights.bin": 24})


# --- every place that the schema has, found by reflection


def ways(message, target, path=()):
    """All paths of field names that lead from ``message`` to ``target``, each type at most once."""
    for field in message.fields:
        kind = field.message_type
        if kind is None or kind in [step[1] for step in path]:
            continue
        steps = (*path, (field, kind))
        if kind is target:
            yield steps
        yield from ways(kind, target, steps)


def planted(steps, fill):
    """A valid model with ``fill`` applied to a message planted at the end of ``steps``."""
    whole = model()
    place = whole
    for field, _ in steps:
        value = getattr(place, field.name)
        place = value.add() if field.is_repeated else value
        place.SetInParent()
    fill(place)
    return whole


TO_TENSORS = list(ways(onnx.ModelProto.DESCRIPTOR, TensorProto.DESCRIPTOR))
TO_NODES = list(ways(onnx.ModelProto.DESCRIPTOR, onnx.NodeProto.DESCRIPTOR))


def named(steps):
    return ".".join(field.name for field, _ in steps)


def test_reflection_finds_the_known_places():
    names = {named(steps) for steps in TO_TENSORS}
    assert {
        "graph.initializer",
        "graph.sparse_initializer.values",
        "graph.node.attribute.t",
    } <= names
    assert {"functions.node.attribute.tensors", "training_info.algorithm.initializer"} <= names
    assert len(names) > 20
    assert {"graph.node", "functions.node"} <= {named(steps) for steps in TO_NODES}


@pytest.mark.parametrize("steps", TO_TENSORS, ids=named)
def test_no_tensor_of_the_schema_is_overlooked(scratch, steps):
    whole = planted(steps, lambda place: place.CopyFrom(external("../secret")))
    with pytest.raises(OnnxExternalDataError, match="secret"):
        check(scratch, whole)


@pytest.mark.parametrize("steps", TO_NODES, ids=named)
def test_no_node_of_the_schema_is_overlooked(scratch, steps):
    node = helper.make_node("Evil", [], [], domain="evil")
    with pytest.raises(OnnxOperatorDomainError, match="evil::Evil"):
        check(scratch, planted(steps, lambda place: place.CopyFrom(node)))


def test_places_inside_branches_of_branches_are_seen(scratch):
    inner = graph([helper.make_node("Evil", ["x"], ["y"], domain="evil")])
    middle = graph([helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=inner)])
    outer = [helper.make_node("Loop", ["n", "c"], ["y"], body=middle)]
    with pytest.raises(OnnxOperatorDomainError):
        check(scratch, model(nodes=outer))


# --- damage


def rich_model():
    branch = graph(
        [helper.make_node("Constant", [], ["y"], value=external("b.bin", 0, 24))], name="b"
    )
    nodes = [
        helper.make_node("If", ["c"], ["z"], then_branch=branch, else_branch=branch),
        helper.make_node("Twice", ["x"], ["y"], domain="mine"),
        helper.make_node("FusedGemm", ["x"], ["y"], domain="com.microsoft", alpha=2.0),
    ]
    functions = [local_function("mine", "")]
    return model(nodes=nodes, initializers=[tensor(), external("a.bin")], functions=functions)


FILES = {"a.bin": 24, "b.bin": 24}


def test_the_rich_model_passes(scratch):
    assert check(scratch, rich_model(), FILES).external_files == {"a.bin", "b.bin"}


@pytest.mark.parametrize(
    "data", [b"", b"\0", b"\xff" * 100, b"\x3a\xff\xff\xff\xff\x0f", b"PK\3\4"]
)
def test_what_is_no_model_is_malformed(scratch, data):
    with pytest.raises(OnnxMalformedError):
        check(scratch, data)


def test_the_engines_own_format_is_refused(scratch):
    with pytest.raises(OnnxMalformedError, match="own format"):
        check(scratch, b"\x20\0\0\0ORTM" + bytes(100))


def test_every_truncation_is_refused(scratch):
    data = rich_model().SerializeToString()
    for cut in range(len(data)):
        with pytest.raises(OnnxGraphError):
            check(scratch, data[:cut], FILES)


def all_in(message, kind):
    """Every message of a type inside another, wherever it is."""
    if isinstance(message, kind):
        yield message
    for field, value in message.ListFields():
        if field.message_type is not None:
            for item in value if field.is_repeated else [value]:
                yield from all_in(item, kind)


def test_what_passes_after_damage_hides_nothing_from_onnx_itself(scratch):
    rng = random.Random(0)
    whole = rich_model().SerializeToString()
    passed = 0
    for _ in range(1500):
        data = bytearray(whole)
        for _ in range(rng.choice([1, 1, 2, 4])):
            at = rng.randrange(len(data))
            data[at] = rng.choice([data[at] ^ 1 << rng.randrange(8), rng.randrange(256)])
        try:
            summary = check(scratch, bytes(data), FILES)
        except OnnxGraphError:
            continue
        try:
            seen = onnx.ModelProto.FromString(bytes(data))
        except DecodeError:
            continue  # the engine's parser will refuse it as well
        passed += 1
        locations = {
            entry.value
            for value in all_in(seen, TensorProto)
            for entry in value.external_data
            if entry.key == "location"
        }
        assert locations <= summary.external_files <= set(FILES)
        assert {node.domain for node in all_in(seen, onnx.NodeProto)} <= summary.domains
        assert summary.domains <= {"", "ai.onnx", "ai.onnx.ml", "com.microsoft", "mine"}
    assert passed > 200


@given(st.binary(max_size=300))
def test_random_bytes_are_refused_or_harmless(scratch, data):
    try:
        summary = check(scratch, data)
    except OnnxGraphError:
        return
    assert summary.opset
    assert not summary.external_files


def varint(value):
    out = b""
    while value > 127:
        out += bytes([value & 127 | 128])
        value >>= 7
    return out + bytes([value])


def test_graphs_nested_without_end_are_refused(scratch):
    data = b""
    for _ in range(20_000):  # attribute.g of node.attribute of graph.node
        for number in (6, 5, 1):
            data = varint(number << 3 | 2) + varint(len(data)) + data
        if len(data) > 500_000:
            break
    data = b"\x3a" + varint(len(data)) + data
    with pytest.raises(OnnxMalformedError, match="nested"):
        check(scratch, data)


def test_endless_fields_are_refused_in_bounded_time(scratch):
    data = b"\x28\x01" * 3_000_000
    started = time.monotonic()
    with pytest.raises(OnnxMalformedError, match=r"more than \d+ fields"):
        check(scratch, data)
    assert time.monotonic() - started < 20


def test_weights_are_not_read(scratch):
    """A model of two gigabytes, most of them a hole, costs nothing to look at."""
    n_bytes = (1 << 31) - 4096
    small = model().SerializeToString()
    tail = b"\x4a" + varint(n_bytes)  # raw_data
    initializer = b"\x2a" + varint(len(tail) + n_bytes) + tail
    field = b"\x3a" + varint(len(initializer) + n_bytes) + initializer
    opset = b"\x42\x02\x10\x12"
    with scratch.open("wb") as stream:
        stream.write(opset + field)
        stream.truncate(len(opset) + len(field) + n_bytes)
    assert len(small) < scratch.stat().st_size
    started = time.monotonic()
    assert check_onnx(scratch, {}).opset == {"": 18}
    assert time.monotonic() - started < 1.0
    scratch.unlink()


def test_the_file_must_be_there(tmp_path):
    with pytest.raises(BundleFileMissingError):
        check_onnx(Path(tmp_path / "nothing.onnx"), {})
