from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from analysed import analyse  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn import functional  # noqa: E402

import graphprune  # noqa: E402
from graphprune.calibration.data import load_batches  # noqa: E402
from graphprune.calibration.gradients import Gradients  # noqa: E402
from graphprune.calibration.observe import Calibration  # noqa: E402
from graphprune.cost import CostModel  # noqa: E402
from graphprune.errors import UsageError  # noqa: E402
from graphprune.frontends.onnx_weights import weights_of  # noqa: E402
from graphprune.frontends.torch_program import TorchProgram, capture  # noqa: E402
from graphprune.models.reference.builder import GraphBuilder  # noqa: E402
from graphprune.passes import Context, Prune  # noqa: E402
from graphprune.score import Evidence, criterion  # noqa: E402
from graphprune.score.normalize import costs  # noqa: E402

pytestmark = pytest.mark.torch

BY_GRADIENTS = (
    "grasp", "group-fisher", "hutchinson", "obd", "snip", "taylor", "taylor-activation", "taylor-gate",
)  # fmt: skip


def squares(result: Any, target: Any) -> Any:
    """The mean over samples of half the squared distance."""
    return (result - target).square().sum() / (2 * len(result))


def scores_of(name: str, program: TorchProgram, gradients: Gradients) -> list[np.ndarray[Any, Any]]:
    structure = program.read()
    found = criterion(name).score(Evidence(structure, program.weights(), {"gradients": gradients}))
    return [found[group.leaf] for group in structure.groups]


class Two(nn.Module):
    """``y = B A x``: all derivatives are known."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(3, 4, bias=False), nn.Linear(4, 2, bias=False)

    def forward(self, x: Any) -> Any:
        return self.b(self.a(x))


class Case:
    """Two batches of five samples for :class:`Two`, and by hand, sample by sample, what the gradients are."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.module = Two()
        self.xs, self.ts = torch.randn(2, 5, 3), torch.randn(2, 5, 2)
        self.program = capture(self.module, (self.xs[0],))
        self.gradients = Gradients(self.program, [(x,) for x in self.xs], list(self.ts), squares)
        a, b = (w.detach().double().numpy() for w in (self.module.a.weight, self.module.b.weight))
        x, t = self.xs.double().numpy(), self.ts.double().numpy()
        h = x @ a.T  # (batch, sample, hidden)
        error = h @ b.T - t
        back = error @ b
        self.a, self.b, self.h, self.x, self.error = a, b, h, x, error
        self.ga = np.einsum("bnk,bni->bnki", back, x)
        self.gb = np.einsum("bno,bnk->bnok", error, h)
        self.gate = h * back

    def reduced(self, a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """The mean of the row of A and the column of B, numbers of elements being given."""
        return np.asarray((a.sum(1) + b.sum(0)) / 2)


@pytest.fixture(scope="module")
def case() -> Case:
    return Case()


def test_taylor_snip_and_obd(case: Case) -> None:
    a, b, ga, gb = case.a, case.b, case.ga, case.gb
    expected = {
        "taylor": case.reduced(abs(a * ga.mean(1)).mean(0), abs(b * gb.mean(1)).mean(0)),
        "snip": case.reduced(abs(a * ga.mean((0, 1))), abs(b * gb.mean((0, 1)))),
        "obd": case.reduced(a**2 * (ga**2).mean((0, 1)) / 2, b**2 * (gb**2).mean((0, 1)) / 2),
    }
    for name, values in expected.items():
        (found,) = scores_of(name, case.program, case.gradients)
        np.testing.assert_allclose(found, values, rtol=1e-4, err_msg=name)  # single precision
        assert np.ptp(values) > 0.1 * values.max()


def test_gates(case: Case) -> None:
    (leaf,) = (group.leaf for group in case.program.read().groups)
    structure = case.program.read()
    (memory,) = costs(CostModel(structure), "memory").values()
    assert memory == 5  # one number for each of five samples, where A makes it
    assert leaf.size == 4
    gate = case.gate
    expected = {
        "taylor-activation": abs(gate).mean((0, 1)),
        "taylor-gate": (gate.mean(1) ** 2).mean(0),
        "group-fisher": (gate**2).mean((0, 1)) / memory,
        "group-fisher:cost=none": (gate**2).mean((0, 1)),
    }
    for name, values in expected.items():
        (found,) = scores_of(name, case.program, case.gradients)
        np.testing.assert_allclose(found, values, rtol=1e-4, err_msg=name)
        assert np.ptp(values) > 0.1 * values.max()


def test_grasp(case: Case) -> None:
    """The Hessian of a product of two matrices, applied to the gradient: product rule by hand."""
    ga, gb = case.ga.mean((0, 1)), case.gb.mean((0, 1))
    moved = case.x @ ga.T @ case.b.T + case.h @ gb.T  # how results change along the gradient
    ha = np.einsum("bnk,bni->ki", moved @ case.b + case.error @ gb, case.x) / 10
    hb = (np.einsum("bno,bnk->ok", moved, case.h) + np.einsum("bno,bnk->ok", case.error, case.x @ ga.T)) / 10
    expected = (case.a * ha).sum(1) + (case.b * hb).sum(0)
    (found,) = scores_of("grasp", case.program, case.gradients)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_hessian_of_a_quadratic() -> None:
    """``L = E |W x - t|^2 / 2`` has the Hessian ``E[x x']`` in each row of W."""
    torch.manual_seed(1)
    module = nn.Linear(3, 2, bias=False)
    x, t = torch.randn(8, 3), torch.randn(8, 2)
    gradients = Gradients(capture(module, (x,)), [(x,)], [t], squares)
    hessian = (x.T @ x / 8).double().numpy()
    vector = torch.randn(2, 3)
    for product in (
        next(gradients.products(lambda _: {"weight": vector})),
        gradients._difference(0, {"weight": vector}),  # exact but for rounding, as gradients are linear here
    ):
        np.testing.assert_allclose(product["weight"].numpy(), vector.double().numpy() @ hessian, atol=2e-3)
    assert abs(hessian[np.triu_indices(3, 1)]).max() > 0.2


class Scaled(nn.Module):
    """``y = D A x``, D a constant diagonal."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(3, 4, bias=False)
        self.register_buffer("d", torch.diag(torch.tensor([1.0, 2.0, 3.0, 4.0])))

    def forward(self, x: Any) -> Any:
        return self.a(x) @ self.d


def test_hutchinson_is_exact_where_the_hessian_is_diagonal() -> None:
    """With samples along the axes the Hessian of ``L = E |D A x|^2 / 2`` is ``d[k]^2 E x[i]^2`` on its diagonal."""
    torch.manual_seed(2)
    module, x = Scaled(), torch.diag(torch.tensor([1.0, 2.0, 3.0]))
    program = capture(module, (x,))
    gradients = Gradients(program, [(x,)], [torch.zeros(3, 4)], squares)
    diagonal = np.outer([1, 4, 9, 16], [1, 4, 9]) / 3
    for found in gradients.diagonals(2):
        np.testing.assert_allclose(found["a.weight"].numpy(), diagonal, rtol=1e-5)
    (scores,) = scores_of("hutchinson", program, gradients)
    norms = module.a.weight.detach().square().sum(1).double().numpy()
    np.testing.assert_allclose(scores, diagonal.sum(1) / (2 * 3) * norms, rtol=1e-5)


class Branches(nn.Module):
    """One tensor that two layers read and a sum passes on."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x: Any) -> Any:
        h = self.a(x)
        return self.c(h + torch.relu_(self.b(h)))


def test_coupled_places_count_each_for_what_passes_through_it() -> None:
    torch.manual_seed(3)
    module = Branches()
    x, t = torch.randn(6, 3), torch.randint(0, 2, (6,))
    program = capture(module, (x,))
    h = module.a(x)
    b, c = h.detach().requires_grad_(), None
    branch = torch.relu(module.b(b))
    c = (h.detach() + branch).detach().requires_grad_()
    loss = functional.cross_entropy(module.c(c), t, reduction="sum")
    (gc,) = torch.autograd.grad(loss, c)
    (gb,) = torch.autograd.grad(branch, b, gc)
    at_b, at_c = (b * gb).detach().double().numpy(), (c * gc).detach().double().numpy()
    gradients = Gradients(program, [(x,)], [t])
    (found,) = scores_of("taylor-activation", program, gradients)
    np.testing.assert_allclose(found, (abs(at_b) + abs(at_c)).mean(0), rtol=1e-4)
    (found,) = scores_of("group-fisher:cost=none", program, gradients)
    np.testing.assert_allclose(found, ((at_b + at_c) ** 2).mean(0), rtol=1e-4)
    assert abs(at_b).max() > 1e-3
    (found,) = scores_of("taylor-gate", program, gradients)
    np.testing.assert_allclose(found, (at_b + at_c).mean(0) ** 2, rtol=1e-4, atol=1e-9)


class Convolutional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.second, self.head = nn.Conv2d(6, 5, 3), nn.Linear(5, 4)
        self.own = nn.InstanceNorm2d(5, track_running_stats=True)
        self.own.num_batches_tracked = None  # so that nothing in the graph says that statistics are written to

    def forward(self, x: Any) -> Any:
        y = functional.dropout(self.norm(self.first(x)).relu_(), training=self.training)
        return self.head(self.own(self.second(y)).relu_().mean((2, 3)))


def convolutional(samples: int = 4) -> tuple[nn.Module, Any, Any]:
    torch.manual_seed(4)
    return Convolutional().eval(), torch.randn(samples, 3, 6, 6), torch.randint(0, 4, (samples,))


def test_gradients_are_those_of_the_module_and_its_gates_add_up() -> None:
    module, x, t = convolutional()
    program = capture(module, (x,))
    gradients = Gradients(program, [(x,)], [t])
    (found,) = gradients.weights()
    functional.cross_entropy(module(x), t).backward()
    for name, parameter in module.named_parameters():
        torch.testing.assert_close(found[name], parameter.grad)
    by_sample = list(gradients.samples())
    assert len(by_sample) == 4
    torch.testing.assert_close(sum(each["first.weight"] for each in by_sample) / 4, found["first.weight"])
    assert not torch.allclose(by_sample[0]["first.weight"], by_sample[1]["first.weight"])
    # dL/dm over a layer's input channel is the sum of w dL/dw over its column
    layer = program.read().calls
    node = [call.node for call in layer if call.op.startswith("aten.conv")][1]
    source = next(call.operands[0].name for call in layer if call.node == node)  # type: ignore[union-attr]
    ((value, grad),) = (taken[source, node] for taken in gradients.activations([(source, node)]))
    product = 4 * (module.second.weight * found["second.weight"]).sum((0, 2, 3))
    torch.testing.assert_close((value * grad).sum((0, 2, 3)), product.detach(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("training", [False, True])
def test_nothing_of_the_module_changes(training: bool) -> None:
    module, x, t = convolutional()
    module.train(training)
    for parameter in module.first.parameters():
        parameter.requires_grad_(False)
    before = copy.deepcopy(module.state_dict())
    flags = [parameter.requires_grad for parameter in module.parameters()]
    program = capture(module, (x,))
    with torch.no_grad():
        gradients = Gradients(program, [(x,)], [t])
        for name in BY_GRADIENTS:
            for values in scores_of(name, program, gradients):
                assert np.isfinite(values).all(), name
                assert np.ptp(values) > 0, name
        assert not torch.is_grad_enabled()
    for name, value in module.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert [parameter.requires_grad for parameter in module.parameters()] == flags
    assert all(parameter.grad is None for parameter in module.parameters())
    assert module.training is training
    assert program.module.first.weight is module.first.weight
    assert float(next(gradients.weights())["first.weight"].abs().sum()) > 0  # frozen ones have gradients too


def test_half_precision_is_differentiated_in_single() -> None:
    module, x, t = convolutional()
    halved = copy.deepcopy(module).bfloat16()
    (exact,) = Gradients(capture(halved.float(), (x,)), [(x,)], [t]).weights()
    halved.bfloat16()
    (found,) = Gradients(capture(halved, (x.bfloat16(),)), [(x,)], [t]).weights()
    assert halved.first.weight.dtype == torch.bfloat16
    for name, grad in found.items():
        assert grad.dtype == torch.float32
        torch.testing.assert_close(grad, exact[name], rtol=1e-3, atol=1e-5)


def test_without_labels_the_network_answers_for_itself() -> None:
    module, x, _ = convolutional()
    program = capture(module, (x,))
    first, again, other = (Gradients(program, [(x,)], seed=seed) for seed in (0, 0, 3))
    assert "no labels" in first.notes[0]
    assert not Gradients(program, [(x,)], [torch.zeros(4).long()]).notes
    for name in BY_GRADIENTS:
        one, two = scores_of(name, program, first), scores_of(name, program, again)
        assert all(map(np.array_equal, one, two)), name
        assert all(np.ptp(values) > 0 for values in one), name
    different = zip(scores_of("taylor", program, first), scores_of("taylor", program, other), strict=True)
    assert not all(np.array_equal(a, b) for a, b in different)
    regression = capture(nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 1)), (torch.randn(5, 3),))
    (values,) = scores_of("obd", regression, Gradients(regression, [(torch.randn(5, 3),)]))
    assert values.min() > 0


class Heads(nn.Module):
    """Queries and keys whose width no layer reads, and hidden units that only a recurrent operator knows."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.ModuleList([nn.Linear(8, 8) for _ in range(3)]), nn.Linear(8, 8)
        self.memory, self.head = nn.LSTM(8, 6, num_layers=2, batch_first=True), nn.Linear(6, 3)

    def forward(self, x: Any) -> Any:
        q, k, v = (layer(x).unflatten(-1, (2, 4)).transpose(1, 2) for layer in self.qkv)
        y = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return self.head(self.memory(self.out(y))[0][:, -1])


@pytest.mark.filterwarnings("ignore")
def test_every_position_is_judged() -> None:
    torch.manual_seed(5)
    x, t = torch.randn(3, 5, 8), torch.randint(0, 3, (3,))
    program = capture(Heads().eval(), (x,))
    gradients = Gradients(program, [(x,)], [t])
    assert len(program.read().groups) >= 4
    for name in BY_GRADIENTS:
        for values in scores_of(name, program, gradients):
            assert np.isfinite(values).all(), name
            assert values.any(), name


@pytest.mark.filterwarnings("ignore")
def test_samples_are_told_apart_in_a_dynamic_batch() -> None:
    torch.manual_seed(6)
    module, x, t = Heads().eval(), torch.randn(4, 5, 8), torch.randint(0, 3, (4,))
    program = capture(module, (x[:2],), dynamic_shapes={"x": {0: torch.export.Dim.AUTO}})
    whole = Gradients(program, [(x,)], [t])
    halves = Gradients(program, [(x[:2],), (x[2:],)], [t[:2], t[2:]])
    fixed = Gradients(capture(module, (x,)), [(x,)], [t])
    for one, two in zip(whole.samples(), fixed.samples(), strict=True):  # run one by one, and as a batch
        for weight, grad in one.items():
            torch.testing.assert_close(grad, two[weight], rtol=1e-3, atol=1e-6)
    for name in ("group-fisher", "taylor-activation", "obd", "snip"):
        for one, two in zip(scores_of(name, program, whole), scores_of(name, program, halves), strict=True):
            np.testing.assert_allclose(one, two, rtol=2e-3, atol=1e-8, err_msg=name)


class Distances(nn.Module):
    """An operator that has no second derivative in the middle."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(2, 3), nn.Linear(4, 2)
        self.register_buffer("anchors", torch.randn(4, 3))

    def forward(self, x: Any) -> Any:
        return self.second(torch.cdist(self.first(x), self.anchors))


def test_where_there_is_no_second_derivative_gradients_are_subtracted() -> None:
    torch.manual_seed(8)
    module, x = Distances(), torch.randn(6, 2)
    gradients = Gradients(capture(module, (x,)), [(x,)], [torch.zeros(6, 2)], squares)
    vector = {name: torch.randn_like(weight) for name, weight in gradients.parameters.items()}
    assert gradients._product(0, vector) is None
    (found,) = gradients.products(lambda _: vector)
    sides = []
    for sign in (1, -1):
        moved = copy.deepcopy(module).double()
        with torch.no_grad():
            for name, parameter in moved.named_parameters():
                parameter += sign * 1e-4 * vector[name]
            sides.append(moved(x.double()))
    # by the bias of the last layer the loss has the derivative E y
    expected = ((sides[0] - sides[1]) / 2e-4).mean(0)
    torch.testing.assert_close(found["second.bias"].double(), expected, rtol=1e-2, atol=1e-3)
    assert float(expected.abs().max()) > 0.1


def test_labels_of_each_token_and_losses_of_each_sample() -> None:
    torch.manual_seed(7)
    module = nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 5))
    x, t = torch.randn(2, 3, 4), torch.randint(0, 5, (2, 3))
    program = capture(module, (x,))
    (tokens,) = Gradients(program, [(x,)], [t]).weights()
    functional.cross_entropy(module(x).flatten(0, 1), t.flatten()).backward()
    torch.testing.assert_close(tokens["0.weight"], module[0].weight.grad)
    each = Gradients(program, [(x,)], [np.asarray(t)], lambda y, _: y.sum((1, 2)))
    (vector,) = each.weights()
    assert vector["1.bias"].allclose(torch.full((5,), 3.0))


def test_progress_is_told_and_errors_say_what_to_do(case: Case) -> None:
    x, t = case.xs[0], case.ts[0]
    program, structure = case.program, case.program.read()
    told: list[str] = []
    list(Gradients(program, [(x,)] * 2, [t] * 2, squares, progress=told.append).weights())
    assert told == ["gradients: batch 1 of 2", "gradients: batch 2 of 2"]

    def refused(match: str, feeds: Sequence[Any], targets: Any = None, loss: Any = None, each: bool = False) -> None:
        with pytest.raises(UsageError, match=match):
            list(getattr(Gradients(program, feeds, targets, loss), "samples" if each else "weights")())

    refused("no batch", [])
    refused("pair them", [(x,)], [t, t])
    refused("give a loss", [(x,)], [t])
    refused("do not fit", [(x,)], [torch.zeros(3).long()])
    refused("batch 1 is nan", [(x,)], [t], lambda y, _: y.sum() * torch.nan)
    refused("does not depend", [(x,)], [t], lambda y, _: y.detach().sum())
    refused("batches of one sample", [(x,)], [t[:3]], squares, each=True)
    with pytest.raises(UsageError, match="use it on a PyTorch module"):
        criterion("taylor").score(Evidence(structure, program.weights()))
    b = GraphBuilder()
    b.output(b.linear(b.linear(b.input("x", (1, 4)), 6), 2), "y")
    model = analyse(b.model())
    with pytest.raises(UsageError, match="use it on a PyTorch module"):
        criterion("obd").score(Evidence(model.structure, weights_of(model.model)))
    with pytest.raises(UsageError, match="ONNX model has no gradients"):
        Gradients.of(Calibration(model.model, [{"x": np.zeros((1, 4), np.float32)}]))
    of = Gradients.of(Calibration(program, [(x,)], targets=[t]), squares)
    torch.testing.assert_close(next(of.weights()), next(Gradients(program, [(x,)], [t], squares).weights()))


@pytest.mark.parametrize("labels", [True, False])
def test_a_module_is_pruned_by_its_gradients(labels: bool) -> None:
    module, x, t = convolutional(6)
    program = capture(module, (x[:2],))
    items = [(x[i : i + 2], t[i : i + 2]) if labels else (x[i : i + 2],) for i in (0, 2, 4)]
    slim, context = program.clone(), Context(data={"calibration": load_batches(items, program, batch=2)})
    Prune(ratio=0.5, criterion="taylor")(slim, context)
    (decision,) = context.decisions
    structure = decision.structure
    targets = [t[:2], t[2:4], t[4:]] if labels else None
    gradients = Gradients(program, [(x[i : i + 2],) for i in (0, 2, 4)], targets)
    scores = criterion("taylor").score(Evidence(structure, program.weights(), {"gradients": gradients}))
    for group in structure.groups:
        kept = decision.selection.keep[group.leaf]
        assert scores[group.leaf][kept].min() >= scores[group.leaf][~kept].max()
    assert any("no labels" in note for note in context.notes) is not labels
    with pytest.raises(UsageError, match="'taylor' needs calibration inputs"):
        Prune(ratio=0.5, criterion="taylor")(program.clone(), Context())


def test_prune_takes_labels_and_a_loss() -> None:
    module, x, t = convolutional(6)
    dynamic = {"x": {0: torch.export.Dim.AUTO}}
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, t), batch_size=2)
    told: list[Any] = []

    def loss(result: Any, target: Any) -> Any:
        told.append(target)
        return functional.cross_entropy(result, target)

    result = graphprune.prune(
        module, (x[:2],), ratio=0.5, criterion="taylor", calibration=loader, loss=loss, compensate="none",
        dynamic_shapes=dynamic,
    )  # fmt: skip
    assert result.status == "pruned"
    assert result.params.after < result.params.before
    assert torch.equal(torch.cat(told), t)
