"""A graph of a PyTorch program as JSON, and back: nothing in it is executed by reading it.

PyTorch's own archives of exported programs unpickle constants and example inputs, and specifications of nested results
name classes to import. Here operators are names that must already be registered, everything else is numbers and text,
and results of classes that are not known when the graph is read come back as dicts and tuples.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import fx, nn
from torch.fx.graph import _PyTreeCodeGen, _PyTreeInfo
from torch.utils import _pytree as pytree

from graphprune.errors import ModelError
from graphprune.frontends.torch_calls import attribute, names_of
from graphprune.frontends.torch_operators import higher_order_named, operator_named
from graphprune.frontends.torch_pruned import CONSTANTS, PrunedModule
from graphprune.frontends.torch_training import COIN, FIXED, PROBABILITY, fixed_nodes

__all__ = ["from_document", "tensors_of", "to_document"]

FORMAT = 1

_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_NAME = re.compile(r"[^.\"\\\x00-\x1f\x7f-\x9f\u2028\u2029]+(\.[^.\"\\\x00-\x1f\x7f-\x9f\u2028\u2029]+)*")
"""What can stand in a string of Python code as it is: parts of names may be any keys of modules in dicts."""

_FUNCTIONS: dict[str, Callable[..., Any]] = {
    **{f"operator.{each.__name__}": each for each in (
        operator.getitem, operator.add, operator.sub, operator.mul, operator.floordiv, operator.truediv, operator.mod,
        operator.pow, operator.neg, operator.eq, operator.ne, operator.lt, operator.le, operator.gt, operator.ge,
        operator.and_, operator.or_, operator.not_,
    )},
    **{f"math.{each.__name__}": each for each in (math.ceil, math.floor, math.trunc)},
    **{f"torch.{name}": getattr(torch, name) for name in (
        "sym_int", "sym_float", "sym_max", "sym_min", "sym_not", "sym_ite", "sym_sum",
    ) if hasattr(torch, name)},
}  # fmt: skip
"""The functions that a graph may call, apart from operators."""

_SPELLED = {id(function): name for name, function in _FUNCTIONS.items()}

_KINDS: dict[str, type] = {
    "dtype": torch.dtype,
    "layout": torch.layout,
    "memory_format": torch.memory_format,
}


def tensors_of(graph: fx.GraphModule, prefix: str = "") -> dict[str, torch.Tensor]:
    """All tensors that a graph and the graphs in it read, by their names."""
    found: dict[str, torch.Tensor] = {}
    for node in graph.graph.nodes:
        if node.op != "get_attr":
            continue
        value = attribute(graph, str(node.target))
        if isinstance(value, torch.Tensor):
            found[prefix + str(node.target)] = value
        elif isinstance(value, fx.GraphModule):
            found.update(tensors_of(value, f"{prefix}{node.target}."))
    return found


# -- writing --------------------------------------------------------------------------------------------------------


def to_document(graph: fx.GraphModule, *, training: bool) -> dict[str, Any]:
    """A graph as JSON types; its tensors are named, not held.

    ``training`` is the mode it is in.

    Raises:
        ModelError: a call or an argument that has no text.
    """
    return {"format": FORMAT, "training": training, **_graph_document(graph, set() if training else fixed_nodes(graph))}


def _graph_document(graph: fx.GraphModule, fixed: set[fx.Node]) -> dict[str, Any]:
    nodes: list[dict[str, Any]] = []
    inner: dict[str, Any] = {}
    for node in graph.graph.nodes:
        entry: dict[str, Any] = {"name": node.name, "op": node.op}
        if node.op == "call_function":
            entry["target"] = _target_text(node)
        elif node.op in ("get_attr", "placeholder"):
            entry["target"] = str(node.target)
        elif node.op != "output":
            raise ModelError(f"node '{node.name}': a {node.op} of '{node.target}' cannot be stored")
        if node.op == "get_attr" and isinstance(body := attribute(graph, str(node.target)), fx.GraphModule):
            inner[str(node.target)] = _graph_document(body, fixed)
        if node.args:
            entry["args"] = [_text(each, node) for each in node.args]
        if node.kwargs:
            entry["kwargs"] = {name: _text(each, node) for name, each in node.kwargs.items()}
        if node.op == "placeholder" and isinstance(value := node.meta.get("val"), torch.Tensor):
            entry["shape"] = [size if isinstance(size, int) else str(size) for size in value.shape]
            entry["dtype"] = str(value.dtype).removeprefix("torch.")
        elif node.op == "placeholder" and isinstance(value := node.meta.get("val", ...), CONSTANTS):
            entry["value"] = _text(value, node)
        if node in fixed or FIXED in node.meta:
            entry["fixed"] = True
        if COIN in node.meta:
            entry["coin"] = _operator_text(node.meta[COIN])
        if PROBABILITY in node.meta:
            entry["probability"] = node.meta[PROBABILITY]
        nodes.append(entry)
    document: dict[str, Any] = {"nodes": nodes}
    if inner:
        document["graphs"] = inner
    codegen = graph.graph._codegen
    if isinstance(codegen, _PyTreeCodeGen):
        info = codegen.pytree_info
        document["signature"] = {
            "arguments": list(info.orig_args),
            "inputs": _spec_text(info.in_spec),
            **({} if info.out_spec is None else {"outputs": _spec_text(info.out_spec)}),
        }
    return document


def _target_text(node: fx.Node) -> str:
    target = node.target
    if isinstance(target, torch._ops.OpOverload):
        return _operator_text(target)
    if isinstance(target, torch._ops.HigherOrderOperator):
        return names_of(target)[0]
    if id(target) in _SPELLED:
        return _SPELLED[id(target)]
    raise ModelError(f"node '{node.name}': a call of {target} cannot be stored; only operators of PyTorch can")


def _operator_text(target: Any) -> str:
    space, _, name = target._schema.name.partition("::")
    return f"{space}.{name}.{target._overloadname}"


def _text(value: Any, node: fx.Node) -> Any:
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {"float": str(value)}
    if isinstance(value, fx.Node):
        return {"node": value.name}
    if isinstance(value, complex):
        return {"complex": [value.real, value.imag]}
    if isinstance(value, list):
        return [_text(each, node) for each in value]
    if isinstance(value, tuple):
        return {"tuple": [_text(each, node) for each in value]}
    if isinstance(value, Mapping):
        return {"dict": {str(key): _text(each, node) for key, each in value.items()}}
    if isinstance(value, slice):
        return {"slice": [_text(each, node) for each in (value.start, value.stop, value.step)]}
    if isinstance(value, torch.device):
        return {"device": str(value)}
    for kind, type_ in _KINDS.items():
        if isinstance(value, type_):
            return {kind: str(value).removeprefix("torch.")}
    raise ModelError(f"node '{node.name}': an argument of type {type(value).__name__} cannot be stored")


def _spec_text(spec: Any) -> Any:
    if spec.is_leaf():
        return None
    inside = [_spec_text(child) for child in spec.children()]
    context = spec.context
    if spec.type in (tuple, list):
        return {"type": spec.type.__name__, "parts": inside}
    keys = list(context) if isinstance(context, list | tuple) else []
    plain = len(keys) == len(inside) and all(isinstance(key, str | int) for key in keys)
    if spec.type is dict and plain:
        return {"type": "dict", "keys": keys, "parts": inside}
    entry: dict[str, Any] = {"type": "tuple" if not plain else "dict", "parts": inside}
    node = pytree.SUPPORTED_SERIALIZED_TYPES.get(spec.type)
    if plain:
        entry["keys"] = keys
        if node is not None and isinstance(node.serialized_type_name, str):
            entry["class"] = node.serialized_type_name
    return entry


# -- reading --------------------------------------------------------------------------------------------------------


def from_document(
    document: Mapping[str, Any],
    tensors: Mapping[str, torch.Tensor],
    persistent: set[str],
    device: torch.device | None = None,
) -> PrunedModule:
    """The module that a document describes, in the mode that it was in.

    ``tensors`` are parameters, buffers and constants by name; ``persistent`` those of a state dict. Calls that name a
    device name ``device`` instead, if it is given.

    Raises:
        ModelError: it is not such a document, or names an operator that is not registered.
    """
    try:
        if document["format"] != FORMAT:
            raise ModelError(f"graph format {document['format']} is not known to this version of graphprune")
        training = bool(document["training"])
        graph = _graph(document, tensors, "", device)
        module = PrunedModule.of(graph, persistent, training, held=True)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, RuntimeError, SyntaxError) as error:
        lines = str(error).splitlines() or [""]
        raise ModelError(f"not a graph of this version of graphprune ({type(error).__name__}: {lines[0]})") from None
    assert isinstance(module, PrunedModule)
    return module


def _graph(
    document: Mapping[str, Any], tensors: Mapping[str, torch.Tensor], prefix: str, device: torch.device | None
) -> fx.GraphModule:
    root = nn.Module()
    for name, body in document.get("graphs", {}).items():
        _place(root, str(name), _graph(body, tensors, f"{prefix}{name}.", device))
    graph = fx.Graph()
    nodes: dict[str, fx.Node] = {}
    for entry in document["nodes"]:
        op, name = str(entry["op"]), str(entry["name"])
        args = tuple(_value(each, nodes, device) for each in entry.get("args", ()))
        kwargs = {_checked(_WORD, key): _value(each, nodes, device) for key, each in entry.get("kwargs", {}).items()}
        if not _WORD.fullmatch(name) or name in nodes:
            raise ValueError(f"node {name!r}")
        if op == "placeholder":
            nodes[name] = graph.create_node(op, _checked(_WORD, entry["target"]), args, name=name)
            if "value" in entry or "shape" in entry:
                nodes[name].meta["val"] = _value(entry["value"], {}, None) if "value" in entry else _stated(entry)
        elif op == "get_attr":
            target = _checked(_NAME, entry["target"])
            if target not in document.get("graphs", {}):
                _place(root, target, tensors[prefix + target])
            nodes[name] = graph.create_node(op, target, name=name)
        elif op == "call_function":
            nodes[name] = graph.create_node(op, _target(str(entry["target"])), args, kwargs, name=name)
        elif op == "output":
            nodes[name] = graph.create_node(op, "output", args, name=name)
        else:
            raise ValueError(f"a node that is a {op!r}")
        if entry.get("fixed"):
            nodes[name].meta[FIXED] = True
        if "coin" in entry:
            nodes[name].meta[COIN] = _target(str(entry["coin"]))
        if "probability" in entry:
            nodes[name].meta[PROBABILITY] = float(entry["probability"])
    signature = document.get("signature")
    if signature is not None:
        info = _PyTreeInfo(
            [_checked(_WORD, each) for each in signature["arguments"]],
            _inputs(signature["inputs"]),
            _spec(signature["outputs"]) if "outputs" in signature else None,
        )
        graph.set_codegen(_PyTreeCodeGen(info))
    graph.lint()
    return fx.GraphModule(root, graph)


def _checked(pattern: re.Pattern[str], text: object) -> str:
    """Names become part of Python code, so nothing but names may pass."""
    if not isinstance(text, str) or not pattern.fullmatch(text):
        raise ValueError(f"the name {text!r}")
    return text


def _stated(entry: Mapping[str, Any]) -> torch.Tensor:
    """A tensor without memory whose shape says what an input must be; symbolic dimensions have no demands."""
    from torch._subclasses import FakeTensorMode
    from torch.fx.experimental.symbolic_shapes import ShapeEnv

    environment = ShapeEnv()
    sizes: list[Any] = []
    for size in entry["shape"]:
        sizes.append(int(size) if isinstance(size, int) else environment.create_unbacked_symint())
    with FakeTensorMode(shape_env=environment):
        return torch.empty(sizes, dtype=_constant("dtype", entry["dtype"]))


def _place(root: nn.Module, name: str, value: Any) -> None:
    *path, own = name.split(".")
    owner = root
    for part in path:
        if part not in owner._modules:
            owner.add_module(part, nn.Module())
        owner = owner._modules[part]
    if isinstance(value, nn.Parameter):
        owner.register_parameter(own, value)
    elif isinstance(value, torch.Tensor):
        owner.register_buffer(own, value)
    else:
        owner.add_module(own, value)


def _target(text: str) -> Any:
    if text in _FUNCTIONS:
        return _FUNCTIONS[text]
    space, _, rest = text.partition(".")
    return higher_order_named(rest) if space == "higher_order" else operator_named(text)


def _constant(kind: str, text: object) -> Any:
    found = getattr(torch, _checked(_WORD, text), None)
    if not isinstance(found, _KINDS[kind]):
        raise ValueError(f"{text!r} is no {kind}")
    return found


def _value(value: Any, nodes: Mapping[str, fx.Node], device: torch.device | None) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list):
        return [_value(each, nodes, device) for each in value]
    ((kind, inner),) = value.items()
    if kind == "node":
        return nodes[inner]
    if kind == "float":
        return float(inner)
    if kind == "complex":
        return complex(*map(float, inner))
    if kind == "tuple":
        return tuple(_value(each, nodes, device) for each in inner)
    if kind == "dict":
        return {str(key): _value(each, nodes, device) for key, each in inner.items()}
    if kind == "slice":
        return slice(*(_value(each, nodes, device) for each in inner))
    if kind == "device":
        return torch.device(str(inner)) if device is None else device
    return _constant(kind, inner)


def _inputs(text: Any) -> Any:
    """The specification of positional and keyword arguments: the names of the latter become part of code."""
    if text is not None and len(text["parts"]) == 2:
        for key in (text["parts"][1] or {}).get("keys", ()):
            _checked(_WORD, key)
    return _spec(text)


def _spec(text: Any) -> Any:
    if text is None:
        return pytree.treespec_leaf() if hasattr(pytree, "treespec_leaf") else pytree.LeafSpec()
    parts = [_spec(each) for each in text["parts"]]
    kind = {"tuple": tuple, "list": list, "dict": dict}[text["type"]]
    if kind is not dict:
        return pytree.TreeSpec(kind, None, parts)
    keys = list(text["keys"])
    if len(keys) != len(parts):
        raise ValueError("a dict with other keys than parts")
    known = pytree.SERIALIZED_TYPE_TO_PYTHON_TYPE.get(text.get("class", ""), dict)
    return pytree.TreeSpec(known, keys, parts)
