"""
What a signal does to a training run: the step ends, all ranks save and leave with status 143.

This protects from work that is lost when a scheduler wants its machine back (SIGTERM) or somebody
presses Ctrl-C (SIGINT): the same command with --resume auto goes on, bit for bit. A signal may
reach one rank only; guard.py's `agree` makes it known to all. SIGKILL cannot be noticed, but
run_folder.py and checkpoints.py write so that it may come at any moment. Not part of the paper.
"""
import signal
import threading
import time
from pathlib import Path

from .ranks import Ranks

REPEATED = 3.0            # seconds within which a second Ctrl-C is taken for the first one


NOTED: list[str] = []     # the signals that this process has noted in its newest run


class Stop:
    """Notes SIGTERM and SIGINT instead of stopping; the training loop looks at `came`.

    came: the signal's name, "" while none has come. A second Ctrl-C stops at once, but only some
    seconds after the first signal: torchrun repeats that within milliseconds.
    """

    def __init__(self):
        self.came = ""
        self.since = 0.0
        NOTED.clear()
        if threading.current_thread() is threading.main_thread():    # Python allows it there only
            signal.signal(signal.SIGTERM, self.note)
            signal.signal(signal.SIGINT, self.note)

    def note(self, number: int, _) -> None:
        """The handler of both signals. Raises KeyboardInterrupt for a Ctrl-C that insists."""
        NOTED.append(signal.Signals(number).name)
        if not self.came:
            self.since = time.monotonic()
            self.came = signal.Signals(number).name
        elif number == signal.SIGINT and time.monotonic() - self.since > REPEATED:
            raise KeyboardInterrupt

    def leave(self, step: int, ranks: Ranks, out: Path) -> None:
        """Exit with the status of a process that SIGTERM ended, as schedulers expect it."""
        reason = self.came or "signal to another rank"
        ranks.say(f"{reason}: saved at step {step}; --out {out} --resume auto goes on")
        raise SystemExit(128 + signal.SIGTERM)
