"""Rounds of choosing and measuring, on machines that are functions."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from graphprune.axes import AxisSpace
from graphprune.budget import Amount, parse_latency
from graphprune.errors import TargetError, UsageError
from graphprune.pace import Pace
from graphprune.pacing import ROUNDS, pace
from graphprune.selection import Selection

WHOLE = 10_000_000
DENSE = 0.02
SPACE = AxisSpace()


def paced(
    text: str, measured: Callable[[float], float], least: float = 0.0, step: int = 1
) -> tuple[Pace, list[tuple[float, float]]]:
    """What comes of a latency where ``measured`` tells the share from the predicted one."""
    asked: list[tuple[float, float]] = []
    predicted: dict[int, float] = {}

    def choose(limit: int) -> tuple[Selection, int]:
        found = max(limit // step * step, round(least * WHOLE))
        selection = Selection(SPACE, {})
        predicted[id(selection)] = found / WHOLE
        alive.append(selection)
        return selection, found

    alive: list[Selection] = []

    def measure(selection: Selection) -> tuple[float, float]:
        share = predicted[id(selection)]
        if asked[-1:] != [(share, measured(share))]:  # what is near enough is measured twice
            asked.append((share, measured(share)))
        return DENSE, DENSE * measured(share)

    selection, found = pace(parse_latency(text), choose, measure, WHOLE, lambda: DENSE)
    assert found.share == pytest.approx(measured(predicted[id(selection)]))
    return found, asked


@pytest.mark.parametrize("text", ["50%", "10ms", "25%", "90%"])
@pytest.mark.parametrize(
    "measured",
    [
        lambda share: share,
        lambda share: 0.2 + 0.8 * share,
        lambda share: share**0.7,
        lambda share: share**1.6,
        lambda share: max(0.0, 1.3 * share - 0.3),
    ],
    ids=["right", "offset", "slow", "fast", "steep"],
)
def test_the_latency_that_is_asked_for_is_met(text: str, measured: Callable[[float], float]) -> None:
    found, asked = paced(text, measured)
    wanted = 0.5 if text == "10ms" else float(text.rstrip("%")) / 100
    assert found.share == pytest.approx(wanted, rel=0.05)
    assert len(asked) <= ROUNDS
    assert [told for told, _ in found.rounds] == [told for told, _ in asked]
    assert [seen for _, seen in found.rounds] == pytest.approx([seen for _, seen in asked])


def test_right_tables_take_one_round() -> None:
    assert len(paced("50%", lambda share: share)[1]) == 1
    assert len(paced("8ms", lambda share: share)[1]) == 1


def test_noise_does_not_lead_astray() -> None:
    noise = iter(np.random.default_rng(0).uniform(0.97, 1.03, 100).tolist())
    known: dict[float, float] = {}
    found, _ = paced("50%", lambda share: known.setdefault(share, next(noise) * (0.15 + 0.85 * share)))
    assert found.share == pytest.approx(0.5, rel=0.05)


def test_what_cannot_be_met_says_how_far_it_got() -> None:
    with pytest.raises(
        TargetError, match=r"latency 20% is out of reach: 10 ms \(50.0% of the dense model's 20 ms\)"
    ) as caught:
        paced("20%", lambda share: 0.4 + 0.5 * share, least=0.2)
    assert caught.value.exit_code == 4
    details = caught.value.details["latency"]
    assert details["share"] == pytest.approx(0.5)
    assert len(details["rounds"]) <= ROUNDS


def test_what_tables_call_the_fastest_need_not_be() -> None:
    found, asked = paced("60%", lambda share: 0.67 if share < 0.85 else 0.595, least=0.8)
    assert found.share == pytest.approx(0.595)
    assert [told for told, _ in asked] == pytest.approx([0.8, 0.92])
    with pytest.raises(TargetError, match="in 3 rounds"):  # half as much again is more than the dense program
        paced("60%", lambda share: 0.67, least=0.7)


def test_a_coarse_choice_stays_below() -> None:
    # Widths come in steps: the slowest that keeps to the latency is taken, though none is near.
    found, asked = paced("50%", lambda share: share, step=WHOLE * 3 // 10)
    assert found.share == pytest.approx(0.3)
    assert found.text.startswith("latency: asked 50%, measured 6 ms of 20 ms (30.0%) after")
    assert len(asked) < ROUNDS
    assert found.to_dict()["rounds"][0] == {"predicted": pytest.approx(0.3), "measured": pytest.approx(0.3)}


def test_what_is_much_less_than_asked_is_told() -> None:
    coarse, _ = paced("50%", lambda share: share, step=WHOLE // 4 + 1)
    assert not coarse.near
    assert coarse.share < 0.5 * 0.95
    assert coarse.text.endswith(
        "; less than was asked, but no cut that was tried lies nearer (--round-to 1 allows more of them)"
    )
    fine, _ = paced("50%", lambda share: share)
    assert fine.near
    assert "less than was asked" not in fine.text


@pytest.mark.parametrize("text", ["20ms", "8s"])
def test_no_cut_is_needed_for_what_the_dense_program_takes(text: str) -> None:
    with pytest.raises(UsageError, match="is no less than the dense model's, 20 ms: ask for less"):
        paced(text, lambda share: share)


def test_what_seems_near_enough_by_noise_is_measured_again() -> None:
    selections = [Selection(SPACE, {}) for _ in range(ROUNDS)]
    chosen: list[int] = []
    # The first cut seems right once, and is not.
    answers = iter([(0.02, 0.0103), (0.02, 0.0143), (0.02, 0.0101), (0.02, 0.0103)])

    def choose(limit: int) -> tuple[Selection, int]:
        chosen.append(limit)
        return selections[len(chosen) - 1], limit

    selection, found = pace(parse_latency("50%"), choose, lambda cut: next(answers), WHOLE, lambda: DENSE)
    assert selection is selections[1]
    assert found.slim == pytest.approx(0.0102)
    assert [seen for _, seen in found.rounds] == pytest.approx([0.615, 0.51])


def test_what_is_just_near_enough_counts_where_nothing_better_comes() -> None:
    # 4 % over the target in every round: another cut is tried, and the nearest is kept.
    found, asked = paced("50%", lambda share: 0.52)
    assert found.share == pytest.approx(0.52)
    assert len(asked) > 1


@pytest.mark.parametrize("text", ["fast", "8", "-3ms", "8 min", ""])
def test_what_is_no_latency(text: str) -> None:
    with pytest.raises(UsageError, match="is no latency; write a share of the dense model's, such as 50%, or a time"):
        parse_latency(text)


def test_latencies_as_people_write_them() -> None:
    assert [str(parse_latency(text)) for text in ("8ms", "0.5s", "300us", "50%", "0.25")] == [
        "8 ms",
        "500 ms",
        "0.3 ms",
        "50%",
        "25%",
    ]
    assert parse_latency("2ms") == Amount(2e6, time=True)
