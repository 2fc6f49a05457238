"""Reads the graph of a PyTorch program into a :class:`~graphprune.structure.Structure`: one pass over the nodes.

The graph is that of ``torch.export``, its parameters read by ``get_attr``. Only shapes and names are looked at, so
parameters may be on the ``meta`` device. Tensors are known by the labels of their nodes, parameters and buffers by
their qualified names; names of one storage are one tensor.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy.typing as npt
import torch
from torch import fx

from graphprune.axes import Pin
from graphprune.elements import Element, computed, extent, literal
from graphprune.frontends import torch_bodies
from graphprune.frontends.reading import Reading, Results
from graphprune.frontends.settlement import settle
from graphprune.frontends.torch_calls import Sequences, arguments, attribute, binding_of, bodies, names_of, places, take
from graphprune.frontends.torch_constants import Constants, written_by
from graphprune.frontends.unread import pin_unread_positions
from graphprune.garbage import uncollected
from graphprune.rules.call import Axes, Call, Operand
from graphprune.sizes import Size, named
from graphprune.structure import Parameter, Structure

__all__ = ["Reader", "number_size", "read", "sizes_of"]

_ARITHMETIC: dict[object, str] = {
    operator.add: "Add",
    operator.sub: "Sub",
    operator.mul: "Mul",
    operator.floordiv: "Div",
    torch.sym_max: "Max",
    torch.sym_min: "Min",
}

_VMAP = {
    "torch._functorch.predispatch._vmap_increment_nesting": 1,
    "torch._functorch.predispatch._vmap_decrement_nesting": -1,
}

_INTERFACE = "the model's interface"

_INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_ROOM = {dtype: int(torch.iinfo(dtype).max) for dtype in _INTEGERS}
_ROOM |= {dtype: int(2 / torch.finfo(dtype).eps) for dtype in _FLOATS}
"""Up to which whole number a tensor of each type can hold all of them."""

_NEWEST = 1 << 30
"""ATen has no versions: rules that know versions of ONNX are to do what its newest says."""


def read(module: fx.GraphModule) -> Structure:
    """The structure of a program that has been canonicalised."""
    with uncollected():
        reader = Reader(module)
        reader.graph(module, "")
        settle(reader.structure)
        pin_unread_positions(reader.structure)
    return reader.structure


def number_size(size: int | torch.SymInt) -> Size:
    """A size as a number, or as a product of symbols."""
    return size if isinstance(size, int) else named(str(size))


def sizes_of(value: object) -> tuple[Size, ...] | None:
    """Sizes of the dimensions of a tensor, None for anything else."""
    return tuple(map(number_size, value.shape)) if isinstance(value, torch.Tensor) else None


class Reader(Reading):
    """The reading of one program; nodes are met in graph order, each once."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__()
        self.constants = Constants()
        self.root = module
        self._stored: dict[tuple[object, ...], str] = {}
        self._storages: dict[int, str] = {}
        self._batched = 0  # how many vmaps deep

    # -- values ---------------------------------------------------------------------------------------------------

    def graph(self, module: fx.GraphModule, prefix: str, given: Sequence[Axes | None] | None = None) -> Results:
        """Read the nodes of a graph, whose inputs have the axes ``given``; returns those of its outputs."""
        taken = iter(given or ())
        results: Results = []
        for node in module.graph.nodes:
            label = prefix + node.name
            if node.op == "placeholder":
                self._input(label, node, None if given is None else next(taken, None), given is None)
            elif node.op == "get_attr":
                self._attribute(module, label, node)
            elif node.op == "call_function":
                self._function(module, prefix, label, node)
            elif node.op == "output":
                results = self._output(prefix, node, given is None)
            else:
                for operand in node.all_input_nodes:
                    self.pin(prefix + operand.name, f"{node.op} {node.target}", "a call that is not of ATen")
        self._pin_unread(module, prefix)
        return results

    def _pin_unread(self, module: fx.GraphModule, prefix: str) -> None:
        """Keep what nobody reads: its positions would be a group that no output could tell anything about."""
        held = [(prefix + node.name, bool(node.users)) for node in module.graph.nodes if node.op == "get_attr"]
        tensors = self.structure.tensors
        read = {id(tensors.get(label)) for label, used in held if used}
        for label, used in held:
            if not used and id(tensors.get(label)) not in read:
                self.pin(label, "parameter", "nothing reads it")

    def _input(self, label: str, node: fx.Node, axes: Axes | None, interface: bool) -> None:
        sizes = sizes_of(node.meta.get("val"))
        if sizes is not None and axes is None:
            pin = Pin(label, "graph input" if interface else "body", _INTERFACE if interface else "an input of a body")
            axes = tuple(self.space.pinned(size, pin) for size in sizes)
        self.structure.tensors[label] = axes
        self._note_type(label, node.meta.get("val"))
        if interface:
            self.structure.inputs.append(label)
        if isinstance(node.meta.get("val"), int | torch.SymInt | float | bool):
            self.elements[label] = (Element(_number(node), lambda _: None),)

    def _output(self, prefix: str, node: fx.Node, interface: bool) -> Results:
        values = node.args[0] if isinstance(node.args[0], Sequences) else (node.args[0],)
        if interface:
            for operand in node.all_input_nodes:
                self.pin(prefix + operand.name, "graph output", _INTERFACE)
                self.structure.outputs.append(self._name(operand, prefix + operand.name))
                for element in self.elements.get(prefix + operand.name, ()):
                    for axis in element.depends:
                        self.space.pin(axis, Pin(operand.name, "graph output", _INTERFACE))
        return [self.structure.tensors.get(prefix + v.name) if isinstance(v, fx.Node) else None for v in values]

    def pin(self, label: str, op: str, reason: str) -> None:
        """Keep all positions of a tensor, or of all tensors of a list, and those that their numbers count."""
        for name in self._lists(label):
            for axis in self.structure.tensors[name] or ():
                self.space.pin(axis, Pin(label, op, reason))
            self.pin_meaning(name)

    def _lists(self, label: str) -> Iterable[str]:
        tensors = self.structure.tensors
        if label in tensors:
            yield label
        index = 0
        while (name := f"{label}.{index}") in tensors:
            yield name
            index += 1

    def _attribute(self, module: fx.GraphModule, label: str, node: fx.Node) -> None:
        name = str(node.target)
        value = attribute(module, name)
        if not isinstance(value, torch.Tensor):
            return
        name = name if module is self.root else label
        if name not in self.structure.parameters:
            self._parameter(name, value, label)
        self.structure.tensors[label] = self.structure.tensors[name]
        if not isinstance(value, torch.nn.Parameter):
            self.constants.hold(label, node, value)

    def _parameter(self, name: str, value: torch.Tensor, label: str) -> None:
        """Give a weight axes of its own, or those of the tensor that it is stored in too."""
        storage = value.untyped_storage()._cdata
        key = (storage, value.storage_offset(), tuple(value.shape), value.stride())
        twin = self._stored.setdefault(key, name)
        axes = tuple(self.space.leaf(int(size)) for size in value.shape)
        if twin != name and value.numel():
            axes = self.structure.tensors[twin] or ()
        elif self._overlaps(storage, value, name) or 0 in value.shape:
            for axis in axes:
                self.space.pin(axis, Pin(name, "parameter", "an empty tensor, or one that shares memory with another"))
        elif name == label and "/" in name:
            for axis in axes:
                self.space.pin(axis, Pin(name, "parameter", "a constant of a nested graph"))
        own = twin == name
        counts = own and isinstance(value, torch.nn.Parameter)
        self.structure.tensors[name] = axes
        self.structure.parameters[name] = Parameter(name, value.numel(), value.element_size() if own else 0, counts)

    def _overlaps(self, storage: int, value: torch.Tensor, name: str) -> bool:
        """Whether memory of another tensor is part of this one, and not all of it."""
        other = self._storages.setdefault(storage, name)
        whole = value.untyped_storage().nbytes() == value.numel() * value.element_size()
        if other == name:
            return False
        if not whole:
            together = self.structure.parameters[other].elements + value.numel()
            if together * value.element_size() <= value.untyped_storage().nbytes():
                return False  # packed one after the other, as flattened recurrent weights are
        for axis in self.structure.tensors[other] or ():
            self.space.pin(axis, Pin(other, "parameter", "shares memory with another tensor"))
        return True

    # -- nodes ----------------------------------------------------------------------------------------------------

    def _function(self, module: fx.GraphModule, prefix: str, label: str, node: fx.Node) -> None:
        if node.target is operator.getitem:
            source, index = node.args[:2]
            assert isinstance(source, fx.Node)
            self.structure.tensors[label] = self.structure.tensors.get(f"{prefix}{source.name}.{index}")
            inner = self.elements.get(f"{prefix}{source.name}.{index}")
            if inner is not None:
                self.elements[label] = inner
            self.mean(label, self.meanings.get(f"{prefix}{source.name}.{index}"))
        elif isinstance(node.target, torch._ops.HigherOrderOperator):
            self._higher_order(module, prefix, label, node)
        elif isinstance(node.target, torch._ops.OpOverload):
            self._operator(prefix, label, node)
        elif any(True for operand in node.all_input_nodes for _ in self._lists(prefix + operand.name)):
            self._foreign(prefix, label, node)
        else:
            self._batched += _VMAP.get(names_of(node.target)[0], 0)
        if isinstance(node.meta.get("val"), int | float | bool | torch.SymInt | torch.SymFloat | torch.SymBool):
            self.elements[label] = (self._scalar(prefix, node),)

    def _operator(self, prefix: str, label: str, node: fx.Node) -> None:
        call = self.call(prefix, label, node)
        self.constants.note(label, prefix, node)
        results = self.relate(call, binding_of(node.target))
        self.pin_computed(call)
        if self._batched:
            for axes in (*(operand.axes for operand in call.operands if operand is not None), *results):
                call.pin(axes or (), "inside vmap")
            for meaning in (*(operand.meaning for operand in call.operands if operand), *call.meanings.values()):
                call.pin(meaning.axis if meaning is not None else (), "inside vmap")
        self._store(label, node, call, results)

    def _foreign(self, prefix: str, label: str, node: fx.Node) -> None:
        """A Python function of tensors."""
        for operand in node.all_input_nodes:
            self.pin(prefix + operand.name, names_of(node.target)[-1], "a function that is not of ATen")
        operands = [self._operand(prefix, value, "operand") for value in node.all_input_nodes]
        value = node.meta.get("val")
        values: Sequence[object] = value if isinstance(value, Sequences) else (value,)
        names = tuple(f"{label}.{index}" for index in range(len(values))) if isinstance(value, Sequences) else (label,)
        sizes = [sizes_of(each) for each in values]
        call = Call(self.space, label, names_of(node.target)[-1], operands, {}, sizes, results=names)
        self._store(label, node, call, self.relate(call, binding_of(node.target)))

    def _store(self, label: str, node: fx.Node, call: Call, results: Results) -> None:
        value = node.meta.get("val")
        if isinstance(value, torch.Tensor):
            self.structure.tensors[label] = self.refined(call, results[0], sizes_of(value))
            self._note_type(label, value)
        elif isinstance(value, Sequences):
            for index, (own, axes) in enumerate(zip(value, results, strict=False)):
                self.structure.tensors[f"{label}.{index}"] = self.refined(call, axes, sizes_of(own))
                self._note_type(f"{label}.{index}", own)

    def _note_type(self, name: str, value: object) -> None:
        if isinstance(value, torch.Tensor):
            self.structure.itemsizes[name] = value.element_size()

    def call(self, prefix: str, label: str, node: fx.Node) -> Call:
        """A node as a rule sees it."""
        given, binding = arguments(node), binding_of(node.target)
        found = places(node, binding, given)
        operands = [None if place is None else self._operand(prefix, take(given, place), place.name) for place in found]
        used = {place.name for place in found if place is not None}
        attributes = {name: self._plain(prefix, value) for name, value in given.items() if name not in used}
        for name, source in (binding.attributes if binding is not None else {}).items():
            attributes[name] = self._plain(prefix, given.get(source)) if isinstance(source, str) else source
        value = node.meta.get("val")
        values = value if isinstance(value, Sequences) else (value,)
        count = len(values)
        call = Call(
            self.space,
            label,
            names_of(node.target)[-1],
            operands,
            attributes,
            [sizes_of(each) if _is_read(node, index) else None for index, each in enumerate(values)],
            opset=_NEWEST,
            results=(label,) if not isinstance(value, Sequences) else tuple(f"{label}.{i}" for i in range(count)),
            room=tuple([_ROOM.get(getattr(each, "dtype", None), 0) for each in values]),
        )
        for name, value in given.items():
            if name not in used:
                for element in self._loose(prefix, value):
                    call.pin(element.depends, "its extent enters a computation")
                for other in self._tensors(value):
                    if f"{prefix}{other.name}" not in self.elements:
                        self.pin(prefix + other.name, call.op, "an operand whose axes the rule does not relate")
        if any(operand is not None and operand.meaning is not None for operand in call.operands):
            for written in written_by(node):
                self.pin_meaning(prefix + written.name, call.why("its positions are written over"))
        return call

    def _tensors(self, value: object) -> Iterable[fx.Node]:
        return [v for v in (value if isinstance(value, Sequences) else (value,)) if isinstance(v, fx.Node)]

    def _loose(self, prefix: str, value: object) -> Iterable[Element]:
        return [element for node in self._tensors(value) for element in self.elements.get(prefix + node.name, ())]

    def _plain(self, prefix: str, value: object) -> object:
        """An attribute with the numbers that the graph computes put in; what is not known is None."""
        if isinstance(value, Sequences):
            return [self._plain(prefix, each) for each in value]
        if isinstance(value, fx.Node):
            known = self.elements.get(prefix + value.name)
            return known[0].value if known else None
        return value

    def _operand(self, prefix: str, value: object, argument: str) -> Operand | None:
        """An argument as a rule sees it; None for one that is left out."""
        if value is None:
            return None
        if isinstance(value, fx.Node):
            label = prefix + value.name
            if label in self.structure.tensors:
                axes = self.structure.tensors[label]
                mask = getattr(value.meta.get("val"), "dtype", None) in (torch.bool, torch.uint8)
                name, constant = self._name(value, label), value.op == "get_attr"
                return Operand(name, axes, constant, None, self._read(label), mask, self.meanings.get(label))
            if label in self.elements:
                return Operand(label, (), False, self.elements[label])
            self.pin(label, argument, "a list that is read as a whole")
            return Operand(label, None)
        if isinstance(value, Sequences):
            tensors = [each for each in self._tensors(value) if prefix + each.name in self.structure.tensors]
            if tensors:
                for each in tensors:
                    self.pin(prefix + each.name, argument, "a list that is read as a whole")
                return Operand(argument, None)
            return Operand(argument, None, elements=tuple(self._element(prefix, each) for each in value))
        if isinstance(value, int) and not isinstance(value, bool):
            return Operand(argument, (), True, (literal(value),))
        return Operand(argument, (), True)

    def _name(self, node: fx.Node, label: str) -> str:
        """What a tensor is called where its maker lists its results, so that graphs can be followed by names."""
        if node.target is operator.getitem:
            source, index = node.args[:2]
            assert isinstance(source, fx.Node)
            listed = f"{label.removesuffix(node.name)}{source.name}.{index}"
            return listed if listed in self.structure.tensors else label
        return str(node.target) if node.op == "get_attr" and str(node.target) in self.structure.parameters else label

    def _read(self, label: str) -> Callable[[], npt.NDArray[Any] | None]:
        return lambda: self.constants.array(label)

    def _element(self, prefix: str, value: object) -> Element:
        if isinstance(value, fx.Node):
            known = self.elements.get(prefix + value.name)
            return known[0] if known else Element(None, lambda _: None)
        return literal(int(value)) if isinstance(value, int | float) else Element(None, lambda _: None)

    # -- numbers --------------------------------------------------------------------------------------------------

    def _scalar(self, prefix: str, node: fx.Node) -> Element:
        """What a node computes about sizes."""
        operands = [self._element(prefix, value) for value in node.args if isinstance(value, fx.Node | int)]
        kind = _ARITHMETIC.get(node.target)
        if node.target is torch.ops.aten.sym_size.int:
            source, dim = node.args[:2]
            assert isinstance(source, fx.Node)
            axes = self.structure.tensors.get(prefix + source.name)
            if axes is not None:
                axis = axes[int(dim)]
                return literal(1) if axis.size == 1 else extent(axis)
        if node.target is torch.ops.aten.sym_numel.default:
            axes = self.structure.tensors.get(prefix + node.all_input_nodes[0].name)
            if axes is not None:
                whole = self.space.product(axes)
                return Element(whole.size, lambda selection: selection.count(whole), depends=axes)
        if kind is not None and len(operands) == 2:
            return computed(kind, operands[0], operands[1])
        if node.target is operator.getitem:
            known = self.elements.get(prefix + node.name)
            if known:
                return known[0]
        depends = tuple(dict.fromkeys(axis for element in operands for axis in element.depends))
        return Element(_number(node), lambda _: None, depends=depends)

    # -- control flow ---------------------------------------------------------------------------------------------

    def _higher_order(self, module: fx.GraphModule, prefix: str, label: str, node: fx.Node) -> None:
        inner = dict(bodies(module, node))
        listed = list(torch_bodies.flat(node.args))
        for other in node.all_input_nodes:
            if other not in listed:
                self.pin(prefix + other.name, names_of(node.target)[0], "an operand that is not among its arguments")
        operands = [
            self._operand(prefix, value, "operand")
            for value in listed
            if not (isinstance(value, fx.Node) and str(value.target) in inner and value.op == "get_attr")
        ]
        value = node.meta.get("val")
        values: Sequence[object] = value if isinstance(value, Sequences) else (value,)
        names = tuple(f"{label}.{index}" for index in range(len(values)))
        sizes = [sizes_of(each) for each in values]
        call = Call(self.space, label, names_of(node.target)[0], operands, {}, sizes, results=names)
        read_body = torch_bodies.READERS.get(call.op)
        if read_body is None:
            results = self.relate(call, binding_of(node.target))
        else:
            results = self.relate(call, None, lambda: read_body(self, prefix, node, inner, call))
            for name, body in inner.items() if not call.meanings else ():
                for given in torch_bodies.results_of(body):
                    if isinstance(given, fx.Node):
                        self.pin_meaning(f"{prefix}{name}/{given.name}", call.why("a result of a body"))
        if not isinstance(value, Sequences):
            self._store(label, node, call, results)
            return
        for index, axes in enumerate(results):
            own = values[index] if index < len(values) else None
            self.structure.tensors[f"{label}.{index}"] = self.refined(call, axes, sizes_of(own))
            self._note_type(f"{label}.{index}", own)


def _is_read(node: fx.Node, index: int) -> bool:
    """Whether anything reads result ``index`` (one result, or a list as a whole, counts as read)."""
    if not isinstance(node.meta.get("val"), Sequences):
        return True
    return any(user.target is not operator.getitem or user.args[1] == index for user in node.users)


def _number(node: fx.Node) -> Size | None:
    value = node.meta.get("val")
    if isinstance(value, bool | float | torch.SymFloat | torch.SymBool):
        return None
    return number_size(value) if isinstance(value, int | torch.SymInt) else None
