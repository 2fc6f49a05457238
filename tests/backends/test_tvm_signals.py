"""Signals that arrive while TVM runs."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from types import FrameType

import pytest

from graphprune.backends.tvm.signals import deferred


class Stop(BaseException):
    """What the handler of this test raises."""


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    def stop(number: int, frame: FrameType | None) -> None:
        raise Stop(number)

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def works(numbers: list[signal.Signals], done: list[bool], error: Exception | None = None) -> None:
    """Work that such signals arrive in, and that may fail."""
    with deferred():
        for number in numbers:
            signal.raise_signal(number)
        if error is not None:
            raise error
        done.append(True)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_handled_when_the_work_is_done(number: signal.Signals) -> None:
    done: list[bool] = []
    with pytest.raises(Stop) as caught:
        works([number], done)
    assert done
    assert caught.value.args == (number,)


def test_a_signal_takes_the_place_of_the_error_that_it_causes() -> None:
    with pytest.raises(Stop):
        works([signal.SIGTERM], [], RuntimeError("143"))


def test_a_second_one_is_handled_at_once() -> None:
    done: list[bool] = []
    with pytest.raises(Stop):
        works([signal.SIGINT, signal.SIGINT], done)
    assert not done


def test_handlers_are_what_they_were() -> None:
    before = signal.getsignal(signal.SIGINT)
    with deferred():
        assert signal.getsignal(signal.SIGINT) is not before
    assert signal.getsignal(signal.SIGINT) is before
    with pytest.raises(Stop):
        signal.raise_signal(signal.SIGINT)
