"""
How a mistake is reported: one line that names it, from one rank, and an exit status.

    a user's mistake (ValueError, OSError)     "train.py: error: ..."     exit status 2
    another rank is gone                       one line from each rank    exit status 1
    Ctrl-C                                     "train.py: stopped"        exit status 130
    anything else is a mistake of ours         Python's traceback

This protects from a page of traceback, once for each rank, in which the mistake has to be searched.
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
import warnings
from collections.abc import Iterator

import torch.distributed as dist

from .ranks import print_line, stop

# What torch says of peers that are lost.
GONE = re.compile("gloo|NCCL|Connection (closed|reset)|Broken pipe|Timed out|store")


@contextlib.contextmanager
def one_line_errors(script: str) -> Iterator[None]:
    """Turn a user's mistake (ValueError, OSError) into one line, from rank 0 alone, and exit.

    script: the name that the line begins with. MOTE_TRACEBACK=1 lets the error through, for
    whoever suspects a mistake of ours. In the end the process group is left, and the handlers of
    SIGINT and SIGTERM are those of before: a run sets its own.
    """
    warnings.formatwarning = one_line_warning
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    try:
        yield
    except KeyboardInterrupt:
        report(f"{script}: stopped")
        raise SystemExit(130) from None
    except (ValueError, OSError) as error:
        if os.environ.get("MOTE_TRACEBACK") == "1":
            raise
        report_mistake(script, error)
        raise SystemExit(2) from None
    except RuntimeError as error:
        if not is_lost_peer(error):
            raise
        report_lost_peer(script, error)
        raise SystemExit(1) from None
    finally:
        stop()
        restore_handlers(handlers)


def report(line: str) -> None:
    """Print a line to stderr, at once: torchrun may kill this process soon."""
    print_line(line, sys.stderr)


def report_mistake(script: str, error: Exception) -> None:
    """Print a user's mistake. Rank 0 does at once; the other ranks wait, and name themselves.

    All ranks mostly make the same mistake. Rank 0 then ends first and torchrun kills the others
    while they wait, so that it is printed once. A mistake of one other rank alone is still printed.
    """
    rank = os.environ.get("RANK", "0")
    where = ""
    if rank != "0":
        time.sleep(3)
        where = f" on rank {rank}"

    report(f"{script}: error{where}: {one_line(message_of(error))}")


def message_of(error: Exception) -> str:
    """What an error says. A DataLoader wraps a worker's error into its traceback: the end of it."""
    text = str(error).strip()
    if "in DataLoader worker process" in text:
        last = text.splitlines()[-1]                             # "ValueError: its message"
        text = last.partition(": ")[2]
    return text


def is_lost_peer(error: RuntimeError) -> bool:
    """Is it what torch.distributed raises here because another rank has ended?"""
    return dist.is_initialized() and GONE.search(str(error)) is not None


def report_lost_peer(script: str, error: RuntimeError) -> None:
    """Print that another rank is gone, and where to read why: this rank cannot know."""
    report(f"{script}: error on rank {os.environ.get('RANK')}: another rank is gone, it seems: "
           f"see its own line or torchrun's summary ({one_line(str(error))[:200]})")


def restore_handlers(handlers: dict) -> None:
    """Set the signal handlers again; Python allows it in the main thread only."""
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
