from __future__ import annotations

import numpy as np
import onnx
import pytest
from analysed import Analysed, analyse
from hypothesis import given, settings
from hypothesis import strategies as st
from random_graphs import random_model

from graphprune.budget import Budget, parse_amount
from graphprune.choose import choose
from graphprune.constraints import Constraints
from graphprune.errors import TargetError
from graphprune.frontends.onnx_slice import slice_model
from graphprune.models import reference
from graphprune.models.reference.builder import GraphBuilder
from graphprune.selection import Selection


def peak(program: Analysed, selection: Selection | None = None) -> int:
    keep = {} if selection is None else selection.keep
    found = program.cost.at({leaf: int(mask.sum()) for leaf, mask in keep.items()}, peak=True).peak
    assert found is not None
    return found


def branches() -> onnx.ModelProto:
    """x (5) -> a (40), b (8) -> c (12); out = a-part + c."""
    b = GraphBuilder()
    x = b.input("x", (1, 5))
    wide = b.relu(b.gemm(x, 40))
    narrow = b.gemm(b.gemm(x, 8), 12)
    b.output(b.gemm(b.concat([wide, narrow], 1), 3), "y")
    return b.model()


def test_the_peak_counts_what_is_alive_at_each_call() -> None:
    program = analyse(branches())
    # x (5) waits for the second branch, so x, a and relu(a) are alive together, then x, relu(a), 8; ...
    live = program.cost.activations.live(program.cost.extents({}))
    counts = (5 + 40, 5 + 40 + 40, 5 + 40 + 8, 40 + 8 + 12, 40 + 12 + 52, 52 + 3, 3)
    assert [int(n) for n in live] == [4 * n for n in counts]
    assert peak(program) == 4 * 104
    assert program.cost.activations.elements(program.cost.extents({})) == 40 + 40 + 8 + 12 + 52 + 3
    assert program.cost.at({}).peak is None


def test_outputs_stay_to_the_end() -> None:
    b = GraphBuilder()
    early = b.gemm(b.input("x", (1, 5)), 30)
    b.output(early, "early")
    b.output(b.gemm(b.gemm(early, 6), 2), "late")
    program = analyse(b.model())
    live = program.cost.activations.live(program.cost.extents({}))
    assert [int(n) for n in live][-1] == 4 * (30 + 2)


@pytest.mark.parametrize("name", ["resnet18", "gpt2", "shufflenet_v2"])
def test_what_is_predicted_is_what_the_slim_program_has(name: str) -> None:
    program = analyse(getattr(reference, name)(tiny=True))
    selection = choose(program.structure, program.scores("random"), Budget(ratio=0.4))
    predicted = peak(program, selection)
    whole = peak(program)
    slice_model(program.model, program.structure, selection)
    assert predicted == peak(Analysed(program.model)) < whole


@settings(max_examples=25, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10_000))
def test_random_programs_have_the_peak_that_was_predicted(seed: int) -> None:
    program = analyse(random_model(seed))
    if not program.structure.groups:
        return
    selection = choose(program.structure, program.scores("random"), Budget(ratio=0.4))
    predicted = peak(program, selection)
    slice_model(program.model, program.structure, selection)
    assert predicted == peak(Analysed(program.model))


@pytest.mark.parametrize("scope", ["local", "global"])
def test_a_peak_is_met_and_groups_without_a_part_in_it_stay(scope: str) -> None:
    program = analyse(reference.resnet18(tiny=True))
    for share in (0.9, 0.7, 0.5):
        budget = Budget(peak=parse_amount(f"{share:.0%}"))
        selection = choose(
            program.structure,
            program.scores(),
            budget,
            Constraints(scope=scope),
            program.cost,  # type: ignore[arg-type]
        )
        assert peak(program, selection) <= share * peak(program)
        for leaf, mask in selection.keep.items():
            back = Selection(selection.space, {**selection.keep, leaf: np.ones_like(mask)})
            assert peak(program, back) > share * peak(program), "cut in vain"
    with pytest.raises(TargetError, match=r"peak 1% is out of reach: .* is the least"):
        choose(program.structure, program.scores(), Budget(peak=parse_amount("1%")), None, program.cost)


@pytest.mark.torch
def test_modules_have_the_peak_of_their_export() -> None:
    torch = pytest.importorskip("torch")
    from graphprune.cost import CostModel
    from graphprune.frontends.torch_program import capture

    class Two(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = torch.nn.Linear(5, 40), torch.nn.Linear(40, 3)

        def forward(self, x: object) -> object:
            left, right = torch.relu(self.first(x)).split([10, 30], 1)
            return self.second(torch.cat([right, left], 1))

    program = capture(Two().eval(), (torch.zeros(1, 5),))
    cost = CostModel(program.read(), program.sizes())
    live = [int(n) // 4 for n in cost.activations.live(cost.extents({}))]
    assert live == [5 + 40, 40 + 40, 40 + 40, 40 + 40, 40 + 3, 3]


def test_sizes_beyond_all_machines_are_counted() -> None:
    """A damaged model may claim them: nothing overflows."""
    from onnx_models import parse

    from graphprune.cost import CostModel
    from graphprune.frontends.onnx_reader import read
    from graphprune.passes import canonicalize

    size = 1 << 40
    model = parse(f"g (float[{size}, {size}] x) => (float[{size}, {size}] y) {{ a = Relu(x) y = Relu(a) }}")
    canonicalize(model)
    assert CostModel(read(model)).at({}, peak=True).peak == 2 * 4 * size * size
