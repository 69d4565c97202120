"""
Where a toyworld run of train.py, the one of `make demo`, spends its time.

Functions of the run are replaced by timed ones. Parts must not call one another, or what they share
would count twice.
"""
import contextlib
import functools
import io
import os
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

from torch.optim.optimizer import register_optimizer_step_post_hook

from tools.bench.steps import owner_of_the_cache, parts_of_a_run, run_train


class Clock:
    """Seconds that functions take, summed by part.

    A training step has no function of its own to be timed: it is what lies between the return of
    the latest timed function, the wait for its batch, and the end of the optimiser's step.
    """

    def __init__(self):
        self.spent = Counter()
        self.last = 0.0                                   # when the latest of them returned

    def timed(self, function: Callable, part: Callable | str) -> Callable:
        """The function, its time taken. part: its name, or a function of the same arguments."""
        @functools.wraps(function)
        def run(*args, **options):
            begin = time.perf_counter()
            result = function(*args, **options)
            self.last = time.perf_counter()
            name = part if isinstance(part, str) else part(*args)
            self.spent[name] += self.last - begin
            return result

        return run

    def stepped(self, *_) -> None:
        """After the optimiser's step: a training step begins when its batch has come."""
        self.spent["training steps"] += time.perf_counter() - self.last


def demo_seconds(arguments: list[str]) -> Counter:
    """Seconds of each part of a run, in this process. What belongs to no part is "all else".

    arguments: further options of train.py. The run has a temporary folder, and prints nothing.
    """
    clock = Clock()

    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        # Each part's function, timed, in place of itself for as long as the stack is open.
        for owner, name, part in parts_of_a_run():
            timed = clock.timed(getattr(owner, name), part)
            stack.enter_context(patch.object(owner, name, timed))

        # Caches of its own: generating videos and encoding names belong to a first run.
        cache = Path(folder) / "cache"
        stack.enter_context(patch.object(owner_of_the_cache(), "CACHE", cache))
        stack.enter_context(patch.dict(os.environ, {"MOTE_DATA": f"{folder}/data"}))
        stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
        stack.callback(register_optimizer_step_post_hook(clock.stepped).remove)

        begin = time.perf_counter()
        run_train(["--out", f"{folder}/run", *arguments])
        total = time.perf_counter() - begin

    return clock.spent + Counter({"all else": total - clock.spent.total()})
