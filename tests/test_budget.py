from __future__ import annotations

import pytest

from graphprune.budget import Amount, Budget, parse_amount
from graphprune.cost import Counts
from graphprune.errors import UsageError


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("50%", Amount(0.5, relative=True)),
        (" 12.5 % ", Amount(0.125, relative=True)),
        ("0.5", Amount(0.5, relative=True)),
        (".25", Amount(0.25, relative=True)),
        ("2.0G", Amount(2e9)),
        ("300k", Amount(3e5)),
        ("1.5M", Amount(1.5e6)),
        ("20MB", Amount(2e7)),
        ("8MiB", Amount(8 * 2**20)),
        ("4ki", Amount(4096)),
        ("1200000", Amount(1.2e6)),
        ("1", Amount(1)),
    ],
)
def test_amounts_as_people_write_them(text: str, amount: Amount) -> None:
    assert parse_amount(text) == amount


@pytest.mark.parametrize("text", ["", "half", "-3M", "5 apples", "1e9", "%", "nan", "inf", "0x10", "3i", "1.2.3"])
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is no amount; write a share such as 50%"):
        parse_amount(text)


def test_limits_are_whole_numbers_that_may_be_kept() -> None:
    budget = Budget(macs=parse_amount("50%"), params=parse_amount("10"))
    assert budget.limits(Counts(params=99, macs=101, bytes=400)) == {"macs": 50, "params": 10}
    assert Budget(macs=parse_amount("30%")).limits(Counts(0, 10, 0)) == {"macs": 3}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "no budget is given"),
        ({"ratio": 0.5, "macs": Amount(5)}, "exclude each other"),
        ({"ratio": 1.0}, "ratio 1 is out of range"),
        ({"ratio": -0.1}, "out of range"),
        ({"ratio": float("nan")}, "out of range"),
        ({"latency": Amount(1.5, relative=True)}, "latency 150% is no less than the dense model's"),
        ({"bytes": Amount(0)}, "target bytes 0 is out of range"),
    ],
)
def test_budgets_that_make_no_sense(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Budget(**arguments)  # type: ignore[arg-type]
