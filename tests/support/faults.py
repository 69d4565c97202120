"""Faults for tests to put into runs: a process that ends, errors, steps that go wrong."""
import itertools
import os

import train


class Killed(BaseException):
    """Stands for the end of a process: nothing catches it."""


def killed(*_, **__):
    raise Killed


def raises(error: Exception):
    def harm(*_):
        raise error
    return harm


def infinite_gradient(losses: dict) -> dict:
    """Finite losses, whose gradients are not."""
    first = losses["L_TE"].clone()
    first.register_hook(lambda gradient: gradient * float("inf"))
    return {**losses, "L_TE": first}


def signalled(number: int):
    """This process gets a signal."""
    def fault(losses: dict) -> dict:
        os.kill(os.getpid(), number)
        return losses
    return fault


def in_forward(monkeypatch, fault, *steps: int) -> None:
    """fault(losses) -> losses, in the forward passes of these steps, counted from 1."""
    forward, count = train.Objective.forward, itertools.count(1)
    monkeypatch.setattr(train.Objective, "forward", lambda self, *inputs: (
        fault(forward(self, *inputs)) if next(count) in steps else forward(self, *inputs)))
