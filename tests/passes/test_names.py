from __future__ import annotations

import onnx_ir as ir
from onnx_models import parse

from graphprune.passes.names import unique_names


def names(model: ir.Model) -> list[str]:
    return [node.name for node in ir.traversal.RecursiveGraphIterator(model.graph)]


def test_unnamed_nodes_are_called_after_operator_and_place() -> None:
    model = parse("agraph (float[2] x) => (float[2] y) { a = Relu(x)\n b = Neg(a)\n y = Relu(b) }")
    model.graph[2].name = "mine"
    assert unique_names(model) == 2
    assert names(model) == ["Relu_0", "Neg_0", "mine"]
    assert unique_names(model) == 0


def test_a_given_name_is_never_taken_from_its_holder() -> None:
    model = parse("agraph (float[2] x) => (float[2] y) { a = Relu(x)\n b = Relu(a)\n c = Relu(b)\n y = Relu(c) }")
    for node, name in zip(model.graph, ("", "same", "same", "Relu_0"), strict=True):
        node.name = name
    unique_names(model)
    assert names(model) == ["Relu_0_1", "same", "same_1", "Relu_0"]


def test_values_of_sibling_branches_get_names_of_their_own() -> None:
    model = parse("""agraph (bool b, float[2] x) => (float[2] y) {
      y = If (b) <then_branch = first () => (float[2] r) { a = Relu(x)\n r = Neg(a) },
                  else_branch = second () => (float[2] r) { a = Abs(x)\n r = Neg(a) }>
    }""")
    for node in ir.traversal.RecursiveGraphIterator(model.graph):
        node.name = f"n{id(node)}"
    assert unique_names(model) == 2
    values = [output.name for node in ir.traversal.RecursiveGraphIterator(model.graph) for output in node.outputs]
    assert values == ["y", "a", "r", "a_1", "r_1"]
    assert [value.name for value in model.graph.outputs] == ["y"]


def test_renaming_an_initializer_leaves_the_tensor_of_a_clone_alone() -> None:
    model = parse("""agraph (bool b, float[2] x) => (float[2] y) {
      y = If (b) <then_branch = first () => (float[2] r1) <float[2] w = {1.0, 2.0}> { r1 = Mul(x, w) },
                  else_branch = second () => (float[2] r2) <float[2] w = {3.0, 4.0}> { r2 = Mul(x, w) }>
    }""")
    copy = model.clone()
    unique_names(copy)
    assert [value.name for graph in copy.graphs() for value in graph.initializers.values()] == ["w", "w_1"]
    assert [value.const_value.name for graph in model.graphs() for value in graph.initializers.values()] == ["w", "w"]
