"""
Bars on a terminal that show how far something is and how long the rest takes; nothing elsewhere.

    for item in progress(items, "toyworld"):       toyworld  45 %|#########           | left 0:00:12

They are tqdm's, which open_clip brings. A bar is on stderr, and only where that is a terminal: a
log file gets none. When it ends it is cleared. Whoever prints while a bar may be shown does so
within `cleared`, as `Ranks.say` does; else both would share a line. Not part of the paper.
"""
import contextlib
import math
from collections.abc import Callable, Iterable, Iterator
from threading import RLock

from tqdm import tqdm


class Bar(tqdm):
    """A bar with the time left. A function may say how long that is; else the mean speed does.

    It has neither tqdm's thread nor its lock between processes: the loader's workers are forked.
    """
    monitor_interval = 0
    seconds_left: Callable[[int], float] | None = None

    @property
    def format_dict(self) -> dict:
        """What `bar_format` may name: tqdm's fields, and `left`."""
        known = super().format_dict
        # tqdm asks for it while it makes the bar, too: before it has counted anything.
        made = self.n - (known["initial"] or 0)
        if self.seconds_left:
            seconds = self.seconds_left(self.n)
        elif made > 0 and self.total:
            seconds = known["elapsed"] / made * (self.total - self.n)
        else:
            seconds = math.nan
        return {**known, "left": duration(seconds)}


Bar.set_lock(RLock())


def progress(items: Iterable, what: str, total: int | None = None, shown: bool = True,
             done: int = 0, seconds_left: Callable[[int], float] | None = None) -> Iterable:
    """The items, with a bar as long as they are asked for.

    total: how many there are, if they cannot say it. shown: false on all ranks but one. done: how
    many an earlier process has seen to; total counts these too. seconds_left: from how many are
    done to the seconds that the others take.
    """
    bar = Bar(items, desc=what, total=total, initial=done, leave=False, miniters=1,
              disable=None if shown else True, dynamic_ncols=True,
              bar_format="{desc} {percentage:3.0f} %|{bar:30}| left {left}")
    bar.seconds_left = seconds_left
    return bar


@contextlib.contextmanager
def cleared() -> Iterator[None]:
    """No bar is on the terminal within; they come back when it ends."""
    with Bar.external_write_mode():
        yield


def duration(seconds: float) -> str:
    """Hours, minutes and seconds.

    >>> duration(5025.4), duration(360000), duration(math.nan)
    ('1:23:45', '100:00:00', '?')
    """
    if not math.isfinite(seconds):
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"
