"""Mutations of ONNX files; every one is a function of the file and a seeded random generator."""

from __future__ import annotations

import random
from collections.abc import Callable

import onnx

ODD = (-(2**63), -(2**31), -1, 0, 1, 2, 3, 7, 64, 1000, 2**31 - 1, 2**31, 2**40, 2**62, 2**63 - 1)
LOCATIONS = (
    "",
    ".",
    "..",
    "../x",
    "/etc/passwd",
    "/dev/zero",
    "x\0y",
    "missing.data",
    "a" * 5000,
    "C:\\x",
    "..\\..\\x",
)


def structural(content: bytes) -> list[int]:
    """Return the offsets of bytes that spell the graph rather than a weight, where damage is more telling."""
    proto = onnx.ModelProto.FromString(content)
    weight = bytearray(len(content))
    for tensor in (*proto.graph.initializer, *(a.t for n in proto.graph.node for a in n.attribute if a.HasField("t"))):
        raw = tensor.raw_data
        start = content.find(raw) if len(raw) > 64 else -1
        if start >= 0:
            weight[start : start + len(raw)] = b"\1" * len(raw)
    return [offset for offset, flag in enumerate(weight) if not flag]


def damage_bytes(content: bytes, other: bytes, offsets: list[int], rng: random.Random) -> bytes:
    """Return the file with a few bytes flipped, cut, moved, spliced with another file, or made up."""
    result = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        at = rng.choice(offsets) if rng.random() < 0.9 else rng.randrange(len(content))
        at = min(at, len(result))
        length = rng.choice((1, 1, 2, 5, 30, 300))
        kind = rng.randrange(9)
        if kind <= 2:
            for _ in range(rng.choice((1, 1, 3, 8))):
                place = min(rng.choice(offsets), len(result) - 1)
                result[place] ^= 1 << rng.randrange(8)
        elif kind == 3:
            del result[at:]
        elif kind == 4:
            del result[at : at + length]
        elif kind == 5:
            start = rng.randrange(len(other))
            result[at : at + rng.choice((0, length))] = other[start : start + length]
        elif kind == 6:
            result[at : at + length] = rng.randbytes(length)
        elif kind == 7:
            result[at : at + length] = rng.choice((b"\0", b"\xff", b"\x80")) * length
        else:
            result[at:at] = result[at : at + length]
        if not result:
            result += b"\0"
    return bytes(result)


def damage_message(content: bytes, other: bytes, offsets: list[int], rng: random.Random) -> bytes:
    """Return the file with a few fields of its message set to something wrong; still well-formed protobuf."""
    proto = onnx.ModelProto.FromString(content)
    for _ in range(rng.choice((1, 1, 2, 5))):
        rng.choice(CHANGES)(proto, rng)
    return proto.SerializeToString()


def _pick(items: object, rng: random.Random) -> object | None:
    listed = list(items)  # type: ignore[call-overload]
    return rng.choice(listed) if listed else None


def _tensors(proto: onnx.ModelProto) -> list[onnx.TensorProto]:
    attributes = (attribute for node in proto.graph.node for attribute in node.attribute)
    return [*proto.graph.initializer, *(attribute.t for attribute in attributes if attribute.HasField("t"))]


def _dims(proto: onnx.ModelProto, rng: random.Random) -> None:
    tensor = rng.choice(_tensors(proto) or [onnx.TensorProto()])
    dims = list(tensor.dims)
    kind = rng.randrange(4)
    if kind == 0 and dims:
        dims[rng.randrange(len(dims))] = rng.choice(ODD)
    elif kind == 1:
        rng.shuffle(dims)
    elif kind == 2:
        dims.insert(rng.randrange(len(dims) + 1), rng.choice((1, 0, 2)))
    else:
        product = 1
        for dim in dims:
            product *= dim
        dims = [product]
    del tensor.dims[:]
    tensor.dims.extend(dims)


def _tensor_type(proto: onnx.ModelProto, rng: random.Random) -> None:
    rng.choice(_tensors(proto) or [onnx.TensorProto()]).data_type = rng.choice((*range(30), -1, 99, 2**31 - 1))


def _tensor_data(proto: onnx.ModelProto, rng: random.Random) -> None:
    tensor = rng.choice(_tensors(proto) or [onnx.TensorProto()])
    kind = rng.randrange(4)
    if kind == 0:
        tensor.ClearField("raw_data")
    elif kind == 1:
        tensor.raw_data = tensor.raw_data[: rng.randrange(len(tensor.raw_data) + 1)]
    elif kind == 2:
        tensor.raw_data = b"\xff" * len(tensor.raw_data)
    else:
        tensor.raw_data = rng.randbytes(len(tensor.raw_data))


def _external(proto: onnx.ModelProto, rng: random.Random) -> None:
    tensor = rng.choice(_tensors(proto) or [onnx.TensorProto()])
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.ClearField("raw_data")
    for key, values in (("location", LOCATIONS), ("offset", ("0", "-5", "x", str(2**63))), ("length", ("0", "9", ""))):
        if rng.random() < 0.7:
            tensor.external_data.add(key=key, value=rng.choice(values))


def _edges(proto: onnx.ModelProto, rng: random.Random) -> None:
    node = rng.choice(proto.graph.node or [onnx.NodeProto()])
    names = [name for other in proto.graph.node for name in (*other.input, *other.output)]
    names += ["", "nowhere", "x" * 3000]
    edges = node.input if rng.random() < 0.7 else node.output
    kind = rng.randrange(3)
    if kind == 0 and edges:
        edges[rng.randrange(len(edges))] = rng.choice(names)
    elif kind == 1 and edges:
        del edges[rng.randrange(len(edges))]
    else:
        edges.append(rng.choice(names))


def _operator(proto: onnx.ModelProto, rng: random.Random) -> None:
    nodes = proto.graph.node
    node = rng.choice(nodes or [onnx.NodeProto()])
    if rng.random() < 0.6:
        names = [schema.name for schema in onnx.defs.get_all_schemas()]
        node.op_type = rng.choice((*names, rng.choice(nodes).op_type if nodes else "", "", "Nonsense"))
    else:
        node.domain = rng.choice(("com.microsoft", "nowhere", "ai.onnx", "ai.onnx.ml", ""))


def _attribute(proto: onnx.ModelProto, rng: random.Random) -> None:
    attributes = [attribute for node in proto.graph.node for attribute in node.attribute]
    if not attributes:
        return
    attribute = rng.choice(attributes)
    kind = rng.randrange(6)
    if kind == 0:
        attribute.type = rng.choice(list(onnx.AttributeProto.AttributeType.values()))
    elif kind == 1:
        attribute.i = rng.choice(ODD)
    elif kind == 2:
        attribute.ints.append(rng.choice(ODD))
    elif kind == 3 and attribute.ints:
        attribute.ints[rng.randrange(len(attribute.ints))] = rng.choice(ODD)
    elif kind == 4:
        attribute.s = rng.choice((b"", b"\xff\xfe", b"SAME_UPPER", b"bij,bjk->bik", b"linear"))
    else:
        attribute.name = rng.choice(("", "axis", "group", "perm", "to", "body", "value", "equation"))


def _remove(proto: onnx.ModelProto, rng: random.Random) -> None:
    graph = proto.graph
    fields = (graph.node, graph.initializer, graph.input, graph.output, graph.value_info, proto.opset_import)
    field = rng.choice(fields)
    if field:
        del field[rng.randrange(len(field))]


def _repeat(proto: onnx.ModelProto, rng: random.Random) -> None:
    graph = proto.graph
    field = rng.choice((graph.node, graph.initializer, graph.input, graph.output, proto.opset_import))
    if field:
        field.add().CopyFrom(rng.choice(field))


def _shuffle(proto: onnx.ModelProto, rng: random.Random) -> None:
    proto.graph.node.sort(key=lambda node: rng.random())


def _versions(proto: onnx.ModelProto, rng: random.Random) -> None:
    if rng.random() < 0.5 or not proto.opset_import:
        proto.ir_version = rng.choice(ODD)
    else:
        rng.choice(proto.opset_import).version = rng.choice((*ODD, *range(1, 30)))


def _value_shape(proto: onnx.ModelProto, rng: random.Random) -> None:
    value = rng.choice([*proto.graph.input, *proto.graph.output, *proto.graph.value_info] or [onnx.ValueInfoProto()])
    dims = value.type.tensor_type.shape.dim
    kind = rng.randrange(4)
    if kind == 0 and dims:
        rng.choice(dims).dim_value = rng.choice(ODD)
    elif kind == 1 and dims:
        rng.choice(dims).dim_param = rng.choice(("", "batch", "unk__0", "a+b", "\n"))
    elif kind == 2:
        dims.add(dim_value=rng.choice(ODD))
    else:
        value.type.tensor_type.elem_type = rng.choice((*range(30), 99))


def _nest(proto: onnx.ModelProto, rng: random.Random) -> None:
    graph = onnx.GraphProto(name="inner")
    graph.node.add(op_type="Identity", input=["inner_input"], output=["inner_output"])
    graph.output.add(name="inner_output")
    for _ in range(rng.choice((1, 3, 20, 40))):
        outer = onnx.GraphProto(name="outer")
        node = outer.node.add(op_type=rng.choice(("If", "Loop", "Scan")), output=["inner_output"])
        node.attribute.add(name="body", type=onnx.AttributeProto.GRAPH).g.CopyFrom(graph)
        outer.output.add(name="inner_output")
        graph = outer
    node = proto.graph.node.add(op_type="If", output=["nested_output"])
    node.attribute.add(name="then_branch", type=onnx.AttributeProto.GRAPH).g.CopyFrom(graph)
    node.attribute.add(name="else_branch", type=onnx.AttributeProto.GRAPH).g.CopyFrom(graph)


CHANGES: tuple[Callable[[onnx.ModelProto, random.Random], None], ...] = (
    _dims,
    _tensor_type,
    _tensor_data,
    _external,
    _edges,
    _edges,
    _operator,
    _operator,
    _attribute,
    _attribute,
    _attribute,
    _remove,
    _repeat,
    _shuffle,
    _versions,
    _value_shape,
    _nest,
)
