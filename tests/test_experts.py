"""Experts of mixtures whose routing is spelled out by operators: they go with their rows of the router.

What is expected is the original whose router never selects the experts that went: their logits are minus infinity.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

torch = pytest.importorskip("torch")

import torch_vision  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402
from torch_models import keeping  # noqa: E402

import graphprune  # noqa: E402
from graphprune.errors import UsageError  # noqa: E402
from graphprune.frontends.torch_program import capture  # noqa: E402
from graphprune.plan import Cut  # noqa: E402
from graphprune.proof.torch_proof import verify_program  # noqa: E402
from graphprune.rules.positions import PLACES  # noqa: E402
from graphprune.structure import Group, Structure  # noqa: E402

pytestmark = pytest.mark.torch

TOKENS, IN, WIDTH, INNER, OUT = 29, 4, 8, 5, 3


class Mixture(nn.Module):
    """A layer of ``experts``, of which ``route`` chooses and weighs ``best`` for each token, beside a shared one."""

    def __init__(self, route: Callable[..., Tensor], experts: int = 6, best: int = 2) -> None:
        super().__init__()
        self.route, self.best = route, best
        self.into, self.shared, self.out = nn.Linear(IN, WIDTH), nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, OUT)
        self.router = nn.Linear(WIDTH, experts)
        self.up = nn.Parameter(torch.randn(experts, WIDTH, INNER))
        self.down = nn.Parameter(torch.randn(experts, INNER, WIDTH))
        self.closed: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        x = self.into(x)
        logits = self.router(x)
        if self.closed:
            logits = logits.index_fill(-1, torch.tensor(self.closed), -torch.inf)
        return self.out(x + self.shared(x).relu() + self.route(self, x, logits))

    def dense(self, x: Tensor, weights: Tensor) -> Tensor:
        """All experts for all tokens, each as heavy as ``weights`` say."""
        h = torch.einsum("tc,ecf->tef", x, self.up).relu()
        return torch.einsum("tef,efc,te->tc", h, self.down, weights)

    def chosen(self, x: Tensor, values: Tensor, places: Tensor) -> Tensor:
        """For each token the experts at ``places``."""
        h = torch.einsum("tc,tkcf->tkf", x, self.up[places]).relu()
        y = torch.einsum("tkf,tkfc->tkc", h, self.down[places])
        return (y * values[..., None]).sum(1)


def gathered(m: Mixture, x: Tensor, logits: Tensor) -> Tensor:
    return m.chosen(x, *logits.softmax(-1).topk(m.best, -1))


def normalised_after(m: Mixture, x: Tensor, logits: Tensor) -> Tensor:
    values, places = logits.topk(m.best, -1)
    return m.chosen(x, values.softmax(-1), places)


def looked_up_again(m: Mixture, x: Tensor, logits: Tensor) -> Tensor:
    """The weights are those of other scores than the choice."""
    places = logits.sigmoid().topk(m.best, -1, sorted=False).indices
    values = logits.softmax(-1).gather(-1, places)
    return m.chosen(x, values / values.sum(-1, keepdim=True), places)


def flat(m: Mixture, x: Tensor, logits: Tensor) -> Tensor:
    values, places = logits.softmax(-1).topk(m.best, -1)
    tokens, places = x.repeat_interleave(m.best, 0), places.reshape(-1)
    h = torch.bmm(m.up.transpose(1, 2).index_select(0, places), tokens.unsqueeze(-1)).relu()
    y = torch.bmm(F.embedding(places, m.down.flatten(1)).view(-1, INNER, WIDTH).transpose(1, 2), h).squeeze(-1)
    return (y * values.reshape(-1, 1)).view(-1, m.best, WIDTH).sum(1)


def best_one(m: Mixture, x: Tensor, logits: Tensor) -> Tensor:
    values, places = logits.softmax(-1).max(-1, keepdim=True)
    return m.chosen(x, values, places)


def second_choice(m: Mixture, x: Tensor, logits: Tensor) -> Tensor:
    """The best, and the best of the others, one after the other."""
    first = logits.argmax(-1, keepdim=True)
    second = logits.scatter(-1, first, -torch.inf).argmax(-1, keepdim=True)
    places = torch.cat([first, second], -1)
    return m.chosen(x, logits.softmax(-1).gather(-1, places), places)


def without_gradients(m: Mixture, x: Tensor, logits: Tensor) -> Tensor:
    with torch.no_grad():
        places = logits.topk(m.best, -1).indices
    return m.chosen(x, logits.softmax(-1).gather(-1, places), places)


def one_hot(m: Mixture, x: Tensor, logits: Tensor) -> Tensor:
    values, places = logits.softmax(-1).topk(m.best, -1)
    return m.dense(x, (F.one_hot(places, logits.shape[-1]) * values[..., None]).sum(1))


def scattered(m: Mixture, x: Tensor, logits: Tensor) -> Tensor:
    values, places = logits.softmax(-1).topk(m.best, -1)
    return m.dense(x, torch.zeros_like(logits).scatter(-1, places, values))


def scattered_in_place(m: Mixture, x: Tensor, logits: Tensor) -> Tensor:
    values, places = logits.softmax(-1).topk(m.best, -1)
    return m.dense(x, torch.zeros(len(x), logits.shape[-1]).scatter_(-1, places, values))


def masked(m: Mixture, x: Tensor, logits: Tensor) -> Tensor:
    """All but the chosen ones are at minus infinity."""
    rest = torch.ones_like(logits).bool().scatter(-1, logits.topk(m.best, -1).indices, False)
    return m.dense(x, logits.masked_fill(rest, -torch.inf).softmax(-1))


def compared(m: Mixture, x: Tensor, logits: Tensor) -> Tensor:
    values, places = logits.softmax(-1).topk(m.best, -1)
    return m.dense(x, ((places[..., None] == torch.arange(logits.shape[-1])) * values[..., None]).sum(1))


def above_the_last(m: Mixture, x: Tensor, logits: Tensor) -> Tensor:
    chances = logits.softmax(-1)
    least = chances.topk(m.best, -1).values[:, -1:]
    return m.dense(x, torch.where(chances >= least, chances, 0.0))


ROUTES = (
    gathered, normalised_after, looked_up_again, flat, best_one, second_choice, without_gradients, one_hot, scattered,
    scattered_in_place, masked, compared, above_the_last,
)  # fmt: skip


def built(route: Callable[..., Tensor], seed: int = 0, **sizes: int) -> tuple[Mixture, Tensor]:
    torch.manual_seed(seed)
    return Mixture(route, **sizes).eval(), torch.randn(TOKENS, IN)


def expert_of(structure: Structure) -> Group | None:
    return next((group for group in structure.groups if group.role == "expert"), None)


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: str(route.__name__))
@pytest.mark.parametrize(("seed", "experts", "best"), [(0, 6, 2), (2, 9, 4)])
def test_a_removed_expert_is_never_selected(route: Callable[..., Tensor], seed: int, experts: int, best: int) -> None:
    module, x = built(route, seed, experts=experts, best=best)
    group = expert_of(capture(module, (x,)).read())
    assert group is not None
    assert not group.exact
    assert {str(place) for place in group.slices} == {"router.weight:0", "router.bias:0", "up:0", "down:0"}
    result = graphprune.prune(module, (x,), units={"expert": 0.5}, criterion="random")
    assert result.verified
    assert result.plan is not None
    assert set(result.plan.cuts) == {"router.weight", "router.bias", "up", "down"}
    kept = result.plan.cuts["up"][0].keep
    assert max(best, 1) <= len(kept) < experts
    module.closed = [number for number in range(experts) if number not in kept]
    with torch.no_grad():
        expected = module(x)
        torch.testing.assert_close(result.module(x), expected)
        module.closed = []
        assert not torch.allclose(module(x), expected, atol=1e-3)


def by_groups(m: Mixture, x: Tensor, logits: Tensor) -> Tensor:
    """The best two of the best three of four groups, as DeepSeek chooses them."""
    scores = logits.sigmoid()
    grouped = scores.view(len(x), 4, 4)
    groups = grouped.topk(2, -1).values.sum(-1).topk(3, -1, sorted=False).indices
    open_ = torch.zeros(len(x), 4).scatter_(1, groups, 1).unsqueeze(-1).expand(len(x), 4, 4).reshape(len(x), 16)
    places = scores.masked_fill(~open_.bool(), 0.0).topk(m.best, -1).indices
    return m.chosen(x, scores.gather(1, places), places)


def test_groups_of_experts_and_experts_of_every_group() -> None:
    module, x = built(by_groups, experts=16)
    structure = capture(module, (x,)).read()
    assert [group.size for group in structure.groups if group.role == "expert"] == [4, 4]
    result = graphprune.prune(module, (x,), units={"expert": 0.5}, criterion="random")
    assert result.verified
    assert result.plan is not None
    kept = result.plan.cuts["up"][0].keep
    assert len(kept) == 6
    module.closed = [number for number in range(16) if number not in kept]
    torch.testing.assert_close(result.module(x), module(x))


@pytest.mark.parametrize("best", [1, 2, 4])
def test_as_many_stay_as_a_token_takes(best: int) -> None:
    module, x = built(gathered, best=best)
    result = graphprune.prune(module, (x,), units={"expert": 0.95})
    assert result.verified
    assert result.plan is not None
    assert len(result.plan.cuts["up"][0].keep) == best
    if best > 1:
        cuts = {name: dict.fromkeys(dims, Cut(6, (0,))) for name, dims in result.plan.cuts.items()}
        with pytest.raises(UsageError, match=rf"'topk' needs {best} positions of 6, and 1 are kept"):
            graphprune.apply(replace(result.plan, cuts=cuts), module, (x,))


@pytest.mark.parametrize("route", [gathered, scattered, compared, flat], ids=lambda route: str(route.__name__))
def test_all_else_goes_together_with_experts(route: Callable[..., Tensor]) -> None:
    module, x = built(route)
    result = graphprune.prune(module, (x,), ratio=0.4, criterion="random")
    assert result.verified
    assert result.plan is not None
    assert {"up", "down", "into.weight"} <= set(result.plan.cuts)
    assert set(result.plan.cuts["up"]) == {0, 1, 2}


def test_the_batch_may_be_of_any_size() -> None:
    module, x = built(flat)
    exported = torch.export.export(module, (x,), dynamic_shapes=({0: torch.export.Dim("tokens", min=2, max=64)},))
    result = graphprune.prune(exported, units={"expert": 0.5})
    assert result.verified
    assert result.plan is not None
    module.closed = [number for number in range(6) if number not in result.plan.cuts["up"][0].keep]
    more = torch.randn(2 * TOKENS, IN)
    torch.testing.assert_close(result.module(more), module(more))


def test_the_proof_needs_positions_to_count_all_experts() -> None:
    module, x = built(gathered)
    program = capture(module, (x,))
    structure = program.read()
    selection = keeping(structure, "up", 0, [1, 3, 4])
    slim = program.clone()
    assert slim.write(structure, selection)
    assert verify_program(program, slim, structure, selection).ok
    for call in structure.calls:
        call.mixes = [mix._replace(positions=()) for mix in call.mixes]
    assert not verify_program(program, slim, structure, selection).ok


# -- what keeps all experts -------------------------------------------------------------------------------------------


def numbered(m: Mixture, x: Tensor, places: Tensor) -> Tensor:
    return x + places.sum(-1, keepdim=True)


def shifted(m: Mixture, x: Tensor, places: Tensor) -> Tensor:
    return m.chosen(x, x[:, :2], (places + 1) % 6)


def written_over(m: Mixture, x: Tensor, places: Tensor) -> Tensor:
    y = m.chosen(x, x[:, :2], places)
    return y + m.chosen(x, x[:, :2], places.clone().clamp_(0, 3))


def written_over_through_a_view(m: Mixture, x: Tensor, places: Tensor) -> Tensor:
    places.view(-1).fill_(2)
    return m.chosen(x, x[:, :2], places)


def stored(m: Mixture, x: Tensor, places: Tensor) -> Tensor:
    memory = torch.zeros(TOKENS, 2, dtype=torch.long)
    memory.copy_(places)
    return m.chosen(x, x[:, :2], memory)


def compared_with_a_number(m: Mixture, x: Tensor, places: Tensor) -> Tensor:
    return m.chosen(x, (places == 3).float(), places)


def truth(m: Mixture, x: Tensor, places: Tensor) -> Tensor:
    return m.chosen(x, places.bool().float(), places)


def more_classes(m: Mixture, x: Tensor, places: Tensor) -> Tensor:
    return m.chosen(x, x[:, :2], places) + F.one_hot(places, WIDTH).sum(1)


def another_table(m: Mixture, x: Tensor, places: Tensor) -> Tensor:
    return m.chosen(x, x[:, :2], places) + torch.arange(80.0).view(10, 8)[places].sum(1)


def ranked(m: Mixture, x: Tensor, places: Tensor) -> Tensor:
    return m.chosen(x, x[:, :2], m.router(x).argsort(-1)[:, :2])


def branched(m: Mixture, x: Tensor, places: Tensor) -> Tensor:
    here = torch.cond(x.sum() > 0, lambda p: p.clone(), lambda p: p.flip(0), (places,))
    return m.chosen(x, x[:, :2], here)


MISUSES = {
    numbered: "its positions are numbers that are computed with",
    shifted: "its positions are numbers that are computed with",
    written_over: "its positions are written over",
    written_over_through_a_view: "its positions are written over",
    stored: "its positions are numbers that are computed with",
    compared_with_a_number: "its positions are numbers that are computed with",
    truth: "its positions are numbers that are computed with",
    more_classes: "its positions are numbers that are computed with",
    another_table: "its positions are numbers that are computed with",
    ranked: "its positions are the result",
    branched: "its positions are numbers that are computed with",
}


@pytest.mark.parametrize("misuse", MISUSES, ids=lambda misuse: str(misuse.__name__))
def test_positions_that_are_read_as_numbers_keep_all_experts(misuse: Callable[..., Tensor]) -> None:
    def route(m: Mixture, x: Tensor, logits: Tensor) -> Tensor:
        values, places = logits.softmax(-1).topk(2, -1)
        return m.chosen(x, values, places.clone()) + misuse(m, x, places)

    module, x = built(route)
    structure = capture(module, (x,)).read()
    assert expert_of(structure) is None
    pins = structure.pins(structure.axis("router.weight", 0))
    assert MISUSES[misuse] in {pin.reason for pin in pins}


@pytest.mark.parametrize(("shown", "reason"), [("logits", "the model's interface"), ("places", PLACES)])
def test_a_result_keeps_all_experts(shown: str, reason: str) -> None:
    class Shown(Mixture):
        logits: Tensor
        places: Tensor

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
            return super().forward(x), getattr(self, shown)

    def route(m: Any, x: Tensor, logits: Tensor) -> Tensor:
        values, m.places = logits.softmax(-1).topk(2, -1)
        m.logits = logits
        return m.chosen(x, values, m.places)

    torch.manual_seed(0)
    structure = capture(Shown(route), (torch.randn(TOKENS, IN),)).read()
    assert expert_of(structure) is None
    assert reason in {pin.reason for pin in structure.pins(structure.axis("up", 0))}


# -- transformers -----------------------------------------------------------------------------------------------------

LAYER = {
    "vocab_size": 32, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "num_experts_per_tok": 2, "use_cache": False, "eos_token_id": None,
}  # fmt: skip
FAMILIES = {
    "Mixtral": {"num_local_experts": 6},
    "Qwen2Moe": {"num_experts": 6, "moe_intermediate_size": 12, "shared_expert_intermediate_size": 20},
    "Olmoe": {"num_experts": 6},
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.parametrize("experts", ["batched_mm", "grouped_mm"])
@pytest.mark.parametrize("family", FAMILIES)
def test_transformers(family: str, experts: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch_vision.declare_operators()
    transformers = pytest.importorskip("transformers")
    config = getattr(transformers, f"{family}Config")(**LAYER, **FAMILIES[family], attn_implementation="eager")
    torch.manual_seed(0)
    model = getattr(transformers, f"{family}ForCausalLM")(config).eval()
    model.set_experts_implementation(experts)
    tokens = torch.randint(0, 32, (2, 5))
    result = graphprune.prune(model, (tokens,), units={"expert": 0.5})
    assert result.verified
    assert result.plan is not None
    assert result.way == "module", result.way_reason
    layers = ["model.layers.0.mlp.", "model.layers.1.mlp."]
    parts = ["gate.weight", "experts.gate_up_proj", "experts.down_proj"]
    assert set(result.plan.cuts) == {layer + part for layer in layers for part in parts}
    kept = iter([result.plan.cuts[f"{layer}gate.weight"][0].keep for layer in layers])
    softmax = F.softmax

    def closed(logits: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """A softmax over six positions is the router's."""
        if logits.shape[-1] == 6:
            stay = next(kept)
            logits = logits.index_fill(-1, torch.tensor([e for e in range(6) if e not in stay]), -torch.inf)
        return softmax(logits, *args, **kwargs)

    with torch.no_grad():
        found = result.module(tokens).logits
        monkeypatch.setattr(F, "softmax", closed)
        torch.testing.assert_close(found, model(tokens).logits)
    assert next(kept, None) is None
