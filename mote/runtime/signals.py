"""
What a signal does to a run: the step ends, all ranks save and leave together, with exit status 143.

Not part of the paper.
"""
import signal
import threading
import time
from pathlib import Path

from .ranks import Ranks


class Stop:
    """`came`: whether SIGTERM (a scheduler that wants the machine back) or SIGINT (Ctrl-C) did. The step goes on.

    A second Ctrl-C some seconds later stops at once: torchrun repeats the first one within milliseconds.
    """

    def __init__(self):
        self.came, self.since = "", 0.0
        if threading.current_thread() is threading.main_thread():            # elsewhere Python allows no handlers
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, self.note)

    def note(self, number: int, _) -> None:
        if self.came and number == signal.SIGINT and time.monotonic() - self.since > 3:
            raise KeyboardInterrupt
        if not self.came:
            self.came, self.since = signal.Signals(number).name, time.monotonic()

    def leave(self, step: int, ranks: Ranks, out: Path) -> None:
        """Exit with the status of a process that SIGTERM ended, as schedulers expect it."""
        if ranks.first:
            print(f"{self.came or 'signal to another rank'}: saved at step {step}; --out {out} --resume auto goes on",
                  flush=True)
        raise SystemExit(128 + signal.SIGTERM)
