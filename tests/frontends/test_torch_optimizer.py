"""The state of optimizers follows the parameters."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch.utils import _pytree as pytree  # noqa: E402
from torch_models import program, random_selection  # noqa: E402
from torch_returned import Language  # noqa: E402

from graphprune.errors import UsageError  # noqa: E402
from graphprune.frontends.torch_back import carry_optimizer, returned  # noqa: E402

pytestmark = pytest.mark.torch


def _step(module: Any, optimizer: torch.optim.Optimizer, inputs: torch.Tensor) -> None:
    optimizer.zero_grad()
    (found,) = pytree.tree_leaves(module(inputs))
    found.square().mean().backward()
    optimizer.step()


@pytest.mark.parametrize("way", ["module", "graph"])
@pytest.mark.parametrize(
    "make",
    [
        lambda groups: torch.optim.AdamW(groups, lr=1e-3, weight_decay=0.1, amsgrad=True),
        lambda groups: torch.optim.SGD(groups, lr=1e-2, momentum=0.9, nesterov=True),
        lambda groups: torch.optim.RMSprop(groups, lr=1e-3, centered=True),
        lambda groups: torch.optim.Adagrad(groups, lr=1e-3),
        lambda groups: torch.optim.SGD(groups, lr=1e-2),
    ],
)
def test_state_is_sliced(make: Any, way: Any) -> None:
    torch.manual_seed(0)
    source, inputs = Language(), torch.randint(19, (2, 7))
    embeddings = [source.embed.weight]
    others = [p for name, p in source.named_parameters() if name != "embed.weight"]
    optimizer = make([{"params": embeddings, "lr": 5e-4}, {"params": others}])
    for _ in range(2):
        _step(source, optimizer, inputs)
    before = program(source, inputs)
    structure = before.read()
    slim = before.clone()
    slim.write(structure, selection := random_selection(structure))
    module = returned(before, slim, structure, selection, way=way).module
    carried = carry_optimizer(optimizer, source, module, structure, selection)
    assert type(carried) is type(optimizer)
    assert [group["lr"] for group in carried.param_groups] == [group["lr"] for group in optimizer.param_groups]
    assert [len(group["params"]) for group in carried.param_groups] == [1, len(others)]
    old, new = source.layers[0].inner.weight, module.get_parameter("layers.0.inner.weight")
    rows, columns = (torch.from_numpy(selection.mask(structure.axis("layers.0.inner.weight", d))) for d in (0, 1))
    for key, value in optimizer.state[old].items():
        if isinstance(value, torch.Tensor) and value.shape == old.shape:
            assert torch.equal(carried.state[new][key], value[rows][:, columns])
        else:
            assert carried.state[new][key] == value
    _step(module, carried, inputs)


def test_other_modules_are_refused() -> None:
    source, inputs = Language(), torch.randint(19, (2, 7))
    before = program(source, inputs)
    structure = before.read()
    stray = torch.optim.SGD(torch.nn.Linear(2, 2).parameters(), lr=0.1)
    with pytest.raises(UsageError, match="not of the module"):
        carry_optimizer(stray, source, source, structure, random_selection(structure))


def test_state_of_another_shape_is_refused() -> None:
    torch.manual_seed(0)
    source, inputs = Language(), torch.randint(19, (2, 7))
    optimizer = torch.optim.SGD(source.parameters(), lr=0.1)
    optimizer.state[source.embed.weight]["rows"] = torch.zeros(19)
    before = program(source, inputs)
    structure = before.read()
    slim = before.clone()
    slim.write(structure, selection := random_selection(structure))
    module = returned(before, slim, structure, selection).module
    with pytest.raises(UsageError, match=r"'rows' of parameter 'embed\.weight'"):
        carry_optimizer(optimizer, source, module, structure, selection)
