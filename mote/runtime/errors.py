"""
How a mistake is reported: one line that names it, from one rank, and an exit status.

    a user's mistake (ValueError, OSError)     "train.py: error: ..."             exit status 2
    the GPU's memory is full                   one line, and what makes it fit    exit status 1
    another rank is gone                       one line, or that rank's alone     exit status 1
    Ctrl-C                                     "train.py: stopped"                exit status 130
    anything else is a mistake of ours         Python's traceback                 exit status 1

This protects against a page of traceback from each rank, in which the mistake has to be searched,
and against ranks that wait for one that has failed: beside others, a process ends by itself.
Every script and tool runs inside `one_line_errors`; options.py turns argparse's mistakes into
ValueError for it. What a signal does to a training run: signals.py. Not part of the paper.
"""
import contextlib
import os
import re
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Iterator

import torch
import torch.distributed as dist

from .ranks import end_at_once, others_wait, print_line, stop
from .signals import NOTED

# Seconds. torchrun takes less to end the other ranks once one has ended; a rank whose peer is lost
# waits for longer, since that one may still be about to report.
OTHERS_FIRST = 3.0
LOST_PEER_LAST = 10.0
# gloo raises a plain RuntimeError. Its text begins with the place in gloo's source.
GLOO = re.compile(r"\[\S*\bgloo/\S+:\d+\]")


@contextlib.contextmanager
def one_line_errors(script: str) -> Iterator[None]:
    """Turn what ends a script into the report and the exit status of the table above.

    script: the name that the line begins with. MOTE_TRACEBACK=1 shows the traceback instead, for
    whoever suspects a mistake of ours. In the end the process group is left, and the handlers of
    SIGINT and SIGTERM are those of before: a run sets its own.

    Where other ranks wait for this one, an error ends the process here, because leaving the group
    means waiting for them. SystemExit is no error: after a signal, all ranks raise it together.
    """
    warnings.formatwarning = one_line_warning
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    try:
        yield
    except SystemExit:
        raise
    except BaseException as error:
        waited_for = others_wait()
        if waited_for:                       # a signal of torchrun ends this rank, not only a step
            set_handlers(dict.fromkeys(handlers, signal.SIG_DFL))
        status = report_error(script, error)
        if waited_for:
            if status is None:
                report("".join(traceback.format_exception(error)).rstrip())
            end_at_once(status or 1)
        if status is None:
            raise
        raise SystemExit(status) from None
    finally:
        stop()
        set_handlers(handlers)


def report(line: str) -> None:
    """Print a line to stderr, at once: torchrun may kill this process soon."""
    print_line(line, sys.stderr)


def report_error(script: str, error: BaseException) -> int | None:
    """Print the line of an error. -> the exit status; None, unprinted, if it is to be a traceback.

    Usually all ranks make the same mistake. Rank 0 reports it at once; the others wait, so that
    torchrun usually ends them first. If it does not, they add their rank. A lost peer is a
    consequence, so even rank 0 waits.
    """
    if isinstance(error, KeyboardInterrupt):
        report(f"{script}: stopped")
        return 130

    if is_lost_peer(error) and NOTED:          # torchrun is ending this rank because of the other
        return 1
    rank = os.environ.get("RANK", "0")
    where = ""
    if rank != "0" or is_lost_peer(error):
        time.sleep(LOST_PEER_LAST if is_lost_peer(error) else OTHERS_FIRST)
        where = f" on rank {rank}"

    text, status = explained(error)
    if not status or os.environ.get("MOTE_TRACEBACK") == "1":
        return None
    report(f"{script}: error{where}: {text}")
    return status


def explained(error: BaseException) -> tuple[str, int]:
    """What to print of an error, and the exit status; 0 if it is a mistake of ours."""
    text = one_line(message_of(error))
    if is_lost_peer(error):
        return ("torch.distributed failed, mostly because another rank is gone: see its own line "
                "or torchrun's summary "
                f"({text[:400]})"), 1
    if isinstance(error, torch.OutOfMemoryError):
        return ("the device has not enough memory: in training raise --accumulate or add "
                f"--checkpoint-activations, in an evaluation lower --batch ({text[:200]})"), 1
    if isinstance(error, (ValueError, OSError)):
        return text, 2
    return text, 0


def message_of(error: BaseException) -> str:
    """What an error says. A DataLoader wraps a worker's error into its traceback: the end of it."""
    text = str(error).strip()
    if "in DataLoader worker process" in text:
        last = text.splitlines()[-1]                             # "ValueError: its message"
        text = last.partition(": ")[2] or last
    return text


def is_lost_peer(error: BaseException) -> bool:
    """Is it what torch.distributed, NCCL or gloo raises because another rank has ended?"""
    return isinstance(error, dist.DistError) or (
        isinstance(error, RuntimeError) and GLOO.search(str(error)) is not None)


def set_handlers(handlers: dict) -> None:
    """Set signal handlers; Python allows it in the main thread only."""
    if threading.current_thread() is threading.main_thread():
        for number, handler in handlers.items():
            signal.signal(number, handler)


def one_line_warning(message, *_, **__) -> str:
    """For warnings.formatwarning: one line, without a line of our source below it."""
    return f"warning: {message}\n"


def one_line(text: str) -> str:
    """A text with every line break and run of spaces made one space."""
    return " ".join(text.split())


def printable(path: str) -> str:
    """A path as a terminal takes it, whatever bytes are in it."""
    return os.fsencode(path).decode(errors="replace")
