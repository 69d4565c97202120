"""Faults for tests to put into runs: a process that ends, errors, steps that go wrong."""
import itertools

import train


class Killed(BaseException):
    """Stands for the end of a process: nothing catches it."""


def killed(*_, **__):
    raise Killed


def raises(error: Exception):
    def harm(*_):
        raise error
    return harm


def in_forward(monkeypatch, fault, *steps: int) -> None:
    """fault(losses) -> losses, in the forward passes of these steps, counted from 1."""
    forward, count = train.Objective.forward, itertools.count(1)
    monkeypatch.setattr(train.Objective, "forward", lambda self, *inputs: (
        fault(forward(self, *inputs)) if next(count) in steps else forward(self, *inputs)))
